"""Signed links: whoever holds one may do one thing with one file until it expires."""

import hashlib
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
        block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def sign(
        self, kind: str, path: str, expires: float, *, max_bytes: int = 0, experiment: str = ""
    ) -> str:
        """`path` with the query that lets its bearer read or write it until `expires`."""
        until = int(expires)
        signature = self._signature(kind, path, str(until), str(max_bytes or ""), experiment)
        most = f"&m={max_bytes}" if max_bytes else ""
        whose = f"&x={experiment}" if experiment else ""
        return f"{path}?e={until}{most}{whose}&s={signature}"  # nothing needs quoting

    def check(self, kind: str, path: str, query: Mapping[str, str], now: float) -> None:
        """Raises `CopilotError` with `link_invalid` or `link_expired`."""
        expected = self._signature(kind, path, *[query.get(name, "") for name in _FIELDS])
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

    def _signature(self, kind: str, path: str, until: str, most: str, whose: str) -> str:
        message = f"copilot-link-1\n{kind}\n{path}\ne={until}\nm={most}\nx={whose}"
        digest = self._hmac(message.encode("utf-8", "replace"))
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _hmac(self, message: bytes) -> bytes:
        """RFC 2104 with the key hashed once: OpenSSL's own takes ten times as long."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()
