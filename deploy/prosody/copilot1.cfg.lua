-- Prosody 0.12 for Co-Pilot 1: original agents and managers, with ordinary accounts and a chat room.
-- A template: README.md says how the names in capitals are filled in. It is a server of its own, or
-- its VirtualHost and Component stand in one that serves other things as well.

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
}
modules_disabled = {
	"s2s"; "s2s_auth_certs"; -- no other servers
	-- what nobody is there to take is refused at once: the originals send it again by themselves,
	-- and a kept request would be answered when nobody waits for it any more
	"offline";
}
storage = "internal" -- accounts

c2s_interfaces = { "${C2S_ADDRESS}" }
c2s_ports = { ${C2S_PORT} }
c2s_direct_tls_ports = {}
-- The originals take STARTTLS where it is offered, and PLAIN. `false` is for those that cannot.
c2s_require_encryption = ${TLS_REQUIRED}
allow_unencrypted_plain_auth = not c2s_require_encryption
ssl = {
	certificate = "${CERTIFICATE}";
	key = "${CERTIFICATE_KEY}";
	protocol = "tlsv1_2+";
}
c2s_timeout = 30 -- seconds to log in
c2s_unauthed_stanza_size_limit = 10000
c2s_stanza_size_limit = 131072
limits = { c2s = { rate = "1mb/s" } }

-- Accounts are made by the operator (`prosodyctl adduser`): one for each agent, because a message to
-- an agent that is gone goes to whoever shares its account; one for all instances of a manager.
VirtualHost "${DOMAIN}"
	authentication = "internal_hashed"
	allow_registration = false
	modules_enabled = { "copilot1_gate" }
	copilot1_services = { ${SERVICES} } -- of managers and monitor; agents reach nobody else

-- Heartbeat: who is in a room answers when it is asked there
Component "conference.${DOMAIN}" "muc"
	modules_disabled = { "muc_mam" }
	restrict_room_creation = "local"
	muc_room_locking = false -- the first to come need not configure it
	muc_room_default_history_length = 0
	muc_room_default_public = false
