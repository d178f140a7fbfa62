"""What can be wrong with a stream."""

from enum import StrEnum


class XmppTrouble(StrEnum):
    UNREACHABLE = "unreachable"
    """No connection, no answer, or the server ended the stream."""
    TLS = "tls"
    """No TLS, or a certificate that is not the domain's."""
    LOGIN = "login"
    """The server does not accept name and password."""
    CONFLICT = "conflict"
    """Another stream of the same name took over."""
    LIMIT = "limit"
    """The server sent more than this side takes, or what XMPP forbids."""


class XmppError(Exception):
    def __init__(self, trouble: XmppTrouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.message = message
