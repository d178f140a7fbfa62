"""Who is asking: the bearer token of a request."""

from aiohttp import web

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.api.route import Route
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.tokens import Tokens

_MOST = 4096


def bearer(request: web.Request) -> str:
    """The token of the Authorization header. Raises `CopilotError` with `unauthenticated`."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token or len(token) > _MOST or not token.isascii():
        raise CopilotError(
            "there is no bearer token",
            remedy="send the header `Authorization: Bearer TOKEN`; "
            "`copilot-manager token create` makes one",
            code=ErrorCode.UNAUTHENTICATED,
        )
    return token


async def authorize(request: web.Request, route: Route, tokens: Tokens) -> Principal:
    """The caller, if the route is for them. Raises `CopilotError` otherwise."""
    principal = await tokens.authenticate(bearer(request))
    if principal.role not in route.roles:
        roles = " or ".join(sorted(role.value for role in route.roles))
        raise CopilotError(
            f"this is for the role {roles}, the token has {principal.role.value}",
            remedy=f"use a token of the role {roles}",
            code=ErrorCode.FORBIDDEN,
        )
    return principal
