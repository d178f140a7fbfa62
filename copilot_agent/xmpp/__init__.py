"""XMPP streams, tamed: bounded, verified, one attempt at a time. For the agent and the manager."""
