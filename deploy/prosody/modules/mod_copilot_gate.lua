-- Pilots reach the managers and nobody else: no other pilot, no other domain, nothing of the server
-- but a ping. Each account has one resource, so a newer login replaces the older.
--
-- Option: copilot_components, the names of the managers' components.

local st = require "util.stanza";
local jid_host = require "util.jid".host;

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

local function may_pass(event)
	local to = event.stanza.attr.to;
	return to and components:contains(jid_host(to)) or is_own_need(event);
end

local function refuse(origin, stanza)
	local kind = stanza.attr.type;
	if kind == "error" or (stanza.name == "iq" and kind == "result") then return; end
	-- Clients announce themselves to everybody; here there is nobody to hear it.
	if stanza.name == "presence" and not stanza.attr.to then return; end
	origin.send(st.error_reply(stanza, "cancel", "not-allowed", "Pilots may address only their manager"));
end

module:hook("pre-stanza", function (event)
	if may_pass(event) then return; end
	refuse(event.origin, event.stanza);
	return true;
end, 1000);

module:hook("pre-resource-bind", function (event)
	if event.resource == RESOURCE then return; end
	event.error = {
		type = "cancel";
		condition = "not-allowed";
		text = "A pilot's resource is '" .. RESOURCE .. "'";
	};
	return false;
end);
