"""The tokens by which clients get in: made, listed and revoked by whoever has the scope `admin`."""

import re
import time
from datetime import datetime
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.domain import access_token
from modelforge.domain.access_token import Scope
from modelforge.errors import BadInput
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body, refuse_key
from modelforge.http.plumbing.identities import OWNER, actor_of, new_token, sha256_of
from modelforge.http.plumbing.keys import HANDLER, PROJECTOR
from modelforge.http.plumbing.route import Route
from modelforge.projections.tokens import TokenDetails

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_RESERVED = frozenset({OWNER})
_LONGEST_YEARS = 100


class TokenList(Struct, frozen=True, kw_only=True):
    """Every token that is not revoked."""

    tokens: list[TokenDetails]


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to make. `expires_at`: a moment with its time zone, as in 2027-01-31T12:00:00Z; null is never."""

    name: Annotated[str, Meta(pattern=_NAME)]
    scope: Scope
    expires_at: Annotated[str, Meta(pattern=_MOMENT)] | None = None


class MadeToken(Struct, frozen=True, kw_only=True):
    """A token that was made. `token` is shown here and never again."""

    name: str
    scope: Scope
    expires_at: str | None
    token: str


class TokenRevoked(Struct, frozen=True, kw_only=True):
    """The token is good for nothing any more; what it had open is ended."""

    status: Literal["revoked"] = "revoked"


async def list_tokens(request: web.Request) -> web.Response:
    """The tokens, less the tokens themselves."""
    known = request.app[PROJECTOR].read_models.tokens.values()
    return json_response(TokenList(tokens=[token.details for token in known]))


async def create_token(request: web.Request) -> web.Response:
    """Make a token; it is shown this once."""
    refuse_key(request, "A token")
    asked = await read_body(request, NewToken)
    token = new_token()
    command = create_command(asked, token)
    await request.app[HANDLER].submit(command, actor=actor_of(request))
    details = request.app[PROJECTOR].read_models.tokens[command.name].details
    made = MadeToken(name=details.name, scope=details.scope, expires_at=details.expires_at, token=token)
    return json_response(made)


def create_command(asked: NewToken, token: str) -> access_token.CreateToken:
    """The command that makes a token.

    Raises:
        BadInput: its name cannot be used, or it would never be good.
    """
    if not re.fullmatch(_NAME, asked.name) or asked.name in _RESERVED:
        raise BadInput(
            "The token's name cannot be used",
            f"{asked.name[:100]!r}: it takes up to 64 letters, digits, dots, dashes, underscores, and is not 'owner'.",
            field="name",
        )
    return access_token.CreateToken(
        name=asked.name, scope=asked.scope, sha256=sha256_of(token), expires_at=_expiry(asked.expires_at)
    )


def _expiry(moment: str | None) -> int | None:
    """A moment in unix microseconds."""
    if moment is None:
        return None
    try:
        seconds = datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadInput("There is no such moment", f"{moment}: {error}.", field="expires_at") from error
    if not time.time() < seconds < time.time() + _LONGEST_YEARS * 366 * 86_400:
        raise BadInput(
            "A token cannot expire then",
            f"{moment}: it takes a moment to come, within {_LONGEST_YEARS} years.",
            field="expires_at",
        )
    return int(seconds) * 1_000_000


async def revoke_token(request: web.Request) -> web.Response:
    """Let nobody in by a token any more; its open sockets and requests are ended."""
    name, key = request.match_info["name"], await idempotency_key(request)
    await request.app[HANDLER].submit(access_token.RevokeToken(name=name, key=key), actor=actor_of(request))
    return json_response(TokenRevoked())


ROUTES = (
    Route(method="GET", path="/api/tokens", handler=list_tokens, answer=TokenList, scope="admin"),
    Route(
        method="POST",
        path="/api/tokens",
        handler=create_token,
        body=NewToken,
        answer=MadeToken,
        errors=(400, 409, 507),
        scope="admin",
    ),
    Route(
        method="DELETE",
        path="/api/tokens/{name}",
        handler=revoke_token,
        answer=TokenRevoked,
        errors=(404, 409, 507),
        scope="admin",
    ),
)
