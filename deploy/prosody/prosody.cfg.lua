-- Prosody 0.12 for the pilots of Cloud Co-Pilot. A template: README.md says how the names in capitals
-- are filled in. Nothing but what pilots and managers need is loaded; there is no second use for it.

plugin_paths = { "${MODULES}" }
data_path = "${STATE}"
pidfile = "${RUN}/prosody.pid"
log = { { levels = { min = "info" }, to = "console" } } -- under systemd: the journal

modules_enabled = {
	"posix"; -- signals, pidfile
	"tls";
	"saslauth";
	"limits";
	"ping";
	"smacks"; -- what a lost connection did not deliver comes back to the manager as an error
}
modules_disabled = {
	"s2s"; "s2s_auth_certs"; -- no other servers
	"presence"; "offline";
}
storage = "none" -- nothing of a pilot is kept

-- Pilots: one address and port, TLS before anything else
c2s_interfaces = { "${C2S_ADDRESS}" }
c2s_ports = { ${C2S_PORT} }
c2s_direct_tls_ports = {}
c2s_require_encryption = true
allow_unencrypted_plain_auth = false
ssl = {
	certificate = "${CERTIFICATE}";
	key = "${CERTIFICATE_KEY}";
	protocol = "tlsv1_2+";
}
c2s_timeout = 30 -- seconds to log in
c2s_unauthed_stanza_size_limit = 10000
c2s_stanza_size_limit = 65536
-- Prosody knows no burst: after reading n bytes of a pilot it waits n/rate seconds
limits = { c2s = { rate = "1mb/s" } }
-- An acknowledgement of stream management is not to hold up the stanza behind it for 40 ms
network_settings = { nagle = false }

-- Managers: on this computer only. One frame of a manager may hold offers for many jobs, and ending
-- its stream would cut off all pilots, so its limit is wider.
component_interfaces = { "127.0.0.1" }
component_ports = { ${COMPONENT_PORT} }
component_stanza_size_limit = 1048576

-- A connection that broke may be resumed for 5 minutes
smacks_hibernation_time = 300
smacks_max_queue_size = 500
smacks_enabled_s2s = false

local managers = { ${COMPONENTS} }

VirtualHost "${DOMAIN}"
	authentication = "copilot"
	copilot_key_file = "${TOKEN_KEY}"
	copilot_components = managers
	conflict_resolve = "kick_old"
	modules_enabled = { "copilot_gate" }

for _, name in ipairs(managers) do
	Component(name)
	component_secret = "${COMPONENT_SECRET}"
	-- a manager that starts again must not wait until its old connection is noticed to be dead
	component_conflict_resolve = "kick_old"
end
