"""XMPP for pilots: the manager as an external component of an XMPP server."""
