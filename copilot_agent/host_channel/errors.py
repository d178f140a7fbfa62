"""Why a connection through the `net` channel did not come about.

ConnectionError (of Python)
├── EgressRefusedError    the launcher does not allow it
├── UnreachableError      the launcher tried and failed, or is absent
└── ConnectionBrokenError the HTTP/2 connection to the launcher makes no sense any more
"""


class EgressRefusedError(ConnectionError):
    """The launcher does not let this guest reach host:port; asking again does not help.

    `reason` is the launcher's word, such as `not_listed`, `private_address` or `network_off`.
    """

    def __init__(self, reason: str, host: str, port: int) -> None:
        super().__init__(f"the launcher refused {host}:{port}: {reason}")
        self.reason = reason
        self.host = host
        self.port = port


class UnreachableError(ConnectionError):
    """The launcher could not connect, or the channel to it is down; may be tried again."""

    def __init__(self, reason: str, host: str, port: int) -> None:
        super().__init__(f"no connection to {host}:{port}: {reason}")
        self.reason = reason
        self.host = host
        self.port = port


class ConnectionBrokenError(ConnectionError):
    """Internal to the channel, which starts anew; its users see their streams reset."""
