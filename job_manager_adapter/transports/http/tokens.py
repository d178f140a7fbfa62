"""Pilots' access tokens: short-lived JWTs, signed with the manager's own key."""

import hashlib
import time

import jwt

from copilot_agent.protocol.errors import CopilotError, ErrorCode

_ALGORITHM = "HS256"
_AUDIENCE = "copilot-pilot"
_MOST_REMEMBERED = 20_000


class AccessTokens:
    """Issues and checks them. HS256 with a key id, so that the key can be changed."""

    def __init__(self, key: bytes, seconds: int = 3600) -> None:
        self._key = key
        self._id = hashlib.sha256(b"key id " + key).hexdigest()[:16]
        self._seconds = seconds
        self._good: dict[str, tuple[str, float]] = {}
        """Pilot and end of tokens whose signature was checked: a long poll brings it each time."""

    def issue(self, pilot: str, now: float) -> tuple[str, float]:
        """A token and when it runs out."""
        expires = int(now) + self._seconds
        claims = {"sub": pilot, "aud": _AUDIENCE, "iat": int(now), "exp": expires}
        token = jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": self._id})
        return token, float(expires)

    def pilot(self, token: str) -> str:
        """Whose token it is. Raises `CopilotError` with token_expired or unauthenticated."""
        pilot, until = self._good.get(token, ("", 0.0))
        if time.time() < until:
            return pilot
        pilot, until = self._checked(token)
        if len(self._good) >= _MOST_REMEMBERED:
            self._good.clear()
        self._good[token] = pilot, until
        return pilot

    def _checked(self, token: str) -> tuple[str, float]:
        try:
            if jwt.get_unverified_header(token).get("kid") != self._id:
                raise _invalid()
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["sub", "exp", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise CopilotError(
                "the access token has run out",
                remedy="renew it: POST /pilot/v1/challenge, then /pilot/v1/renew",
                code=ErrorCode.TOKEN_EXPIRED,
            ) from error
        except jwt.InvalidTokenError as error:
            raise _invalid() from error
        return str(claims["sub"]), float(claims["exp"])


def _invalid() -> CopilotError:
    return CopilotError(
        "the access token is not one of this manager's",
        remedy="renew it: POST /pilot/v1/challenge, then /pilot/v1/renew",
        code=ErrorCode.UNAUTHENTICATED,
    )
