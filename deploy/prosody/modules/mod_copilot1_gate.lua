-- An original agent obeys whoever can write to it: a job or a reboot may come from any account. So
-- agents reach the services (managers, monitor) and the chat service, and no other agent.
--
-- Option: copilot1_services, the bare addresses of the services; without any, everybody reaches
-- everybody.

local st = require "util.stanza";
local jid_bare, jid_host = require "util.jid".bare, require "util.jid".host;

local services = module:get_option_set("copilot1_services", {});
local conference = "conference." .. module.host;

local function may_pass(event)
	local from, to = jid_bare(event.origin.full_jid), event.stanza.attr.to;
	if services:empty() or services:contains(from) or not to then return true; end
	to = jid_bare(to);
	return to == from or to == module.host or services:contains(to) or jid_host(to) == conference;
end

module:hook("pre-stanza", function (event)
	if may_pass(event) then return; end
	local stanza = event.stanza;
	local kind = stanza.attr.type;
	if kind ~= "error" and not (stanza.name == "iq" and kind == "result") then
		event.origin.send(st.error_reply(stanza, "cancel", "not-allowed", "Agents reach only services"));
	end
	return true;
end, 1000);
