-- Pilots reach the managers and nobody else: no other pilot, no other domain, nothing of the server
-- but a ping. Each account has one resource, so a newer login replaces the older.
--
-- A manager gets IQs, with nothing in them but one element with text. A namespace that is declared
-- once and used by a thousand elements or attributes is written out for each of them on the way to
-- the manager, whose stream ends at 1 MiB, and with it the conversations of all.
--
-- Each stanza costs this server and the manager something, however short it is, and all pilots wait
-- in one queue: who says more than RATE a second, after a BURST, is heard later.
--
-- Option: copilot_components, the names of the managers' components.

local st = require "util.stanza";
local jid_host = require "util.jid".host;
local add_filter = require "util.filters".add_filter;
local throttle = require "util.throttle";
local timer = require "util.timer";

local RATE, BURST = 250, 1000;

local RESOURCE = "pilot";
local OWN_NEEDS = {
	["urn:xmpp:ping"] = true;
	["urn:ietf:params:xml:ns:xmpp-session"] = true; -- older clients ask for it after binding
};

local components = module:get_option_set("copilot_components", {});

local function is_own_need(event)
	local stanza = event.stanza;
	local child = stanza.tags[1];
	return stanza.name == "iq"
		and (event.to_self or stanza.attr.to == module.host)
		and child ~= nil and OWN_NEEDS[child.attr.xmlns] == true;
end

local function is_for_manager(stanza)
	local to = stanza.attr.to;
	return to and components:contains(jid_host(to));
end

local function has_own_names(element)
	for name in pairs(element.attr) do
		if name:find("\1", 1, true) then return false; end -- it has a namespace
	end
	return true;
end

local function nothing() return nil; end

-- Of an answer only its id and type are of interest.
local function is_plain(stanza)
	if stanza.name ~= "iq" or not has_own_names(stanza) then return false; end
	if stanza.attr.type == "result" or stanza.attr.type == "error" then
		stanza:maptags(nothing);
		return true;
	end
	local child = stanza.tags[1];
	return #stanza.tags == 1 and #child.tags == 0 and has_own_names(child);
end

local function may_pass(event)
	if is_for_manager(event.stanza) then return is_plain(event.stanza); end
	return is_own_need(event);
end

local function refuse(origin, stanza)
	local kind = stanza.attr.type;
	if kind == "error" or (stanza.name == "iq" and kind == "result") then return; end
	-- Clients announce themselves to everybody; here there is nobody to hear it.
	if stanza.name == "presence" and not stanza.attr.to then return; end
	local text = is_for_manager(stanza) and "A manager takes IQs with one element with text"
		or "Pilots may address only their manager";
	origin.send(st.error_reply(stanza, "cancel", "not-allowed", text));
end

module:hook("pre-stanza", function (event)
	if may_pass(event) then return; end
	refuse(event.origin, event.stanza);
	return true;
end, 1000);

local function keep_pace(session)
	local pace, pausing = throttle.create(BURST, BURST / RATE), false;
	local function pause()
		pausing = false;
		if session.conn then session.conn:pausefor(-pace.balance / RATE); end
	end
	add_filter(session, "stanzas/in", function (stanza)
		pace.balance = pace:update() - 1;
		if pace.balance < 0 and not pausing then
			pausing = true;
			timer.add_task(0, pause); -- after the pause that the limit of bytes causes, and instead of it
		end
		return stanza;
	end);
end

module:hook("pre-resource-bind", function (event)
	if event.resource == RESOURCE then
		keep_pace(event.session);
		return;
	end
	event.error = {
		type = "cancel";
		condition = "not-allowed";
		text = "A pilot's resource is '" .. RESOURCE .. "'";
	};
	return false;
end);
