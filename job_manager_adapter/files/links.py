"""Signed links: whoever holds one may do one thing with one file until it expires."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from copilot_agent.protocol.errors import CopilotError, ErrorCode

READ, WRITE = "read", "write"
_FIELDS = ("e", "m", "x")
"""Query fields under the signature: expiry, most bytes, experiment."""


class LinkSigner:
    """Signs paths with HMAC-SHA256."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(
        self, kind: str, path: str, expires: float, *, max_bytes: int = 0, experiment: str = ""
    ) -> str:
        """`path` with the query that lets its bearer read or write it until `expires`."""
        query = {"e": str(int(expires)), "m": str(max_bytes), "x": experiment}
        query = {name: value for name, value in query.items() if value not in ("", "0")}
        signature = self._signature(kind, path, query)
        words = [f"{name}={value}" for name, value in query.items()]  # none needs quoting
        return f"{path}?{'&'.join(words)}&s={signature}"

    def check(self, kind: str, path: str, query: Mapping[str, str], now: float) -> None:
        """Raises `CopilotError` with `link_invalid` or `link_expired`."""
        expected = self._signature(kind, path, query)
        given = query.get("s", "").encode("utf-8", "replace")
        if not hmac.compare_digest(expected.encode(), given):
            raise CopilotError(
                "the link's signature does not match",
                remedy="use the link exactly as the manager sent it, with the method it is for",
                code=ErrorCode.LINK_INVALID,
            )
        if int(query["e"]) < now:
            raise CopilotError(
                "the link has expired",
                remedy="ask for a fresh link (link_requests in the next frame)",
                code=ErrorCode.LINK_EXPIRED,
            )

    def _signature(self, kind: str, path: str, query: Mapping[str, str]) -> str:
        fields = "\n".join([f"{name}={query.get(name, '')}" for name in _FIELDS])
        message = f"copilot-link-1\n{kind}\n{path}\n{fields}".encode("utf-8", "replace")
        digest = hmac.digest(self._key, message, "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
