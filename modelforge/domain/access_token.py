"""The tokens of clients. Its commands, events, state, evolve and decide, in this order.

A token itself is never here: only its SHA-256, which says nothing of the 256 random bits that it is made of.
"""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import Conflict, NotFound

Scope = Literal["read", "write", "admin"]
"""What a token is good for: each scope has those before it too."""


class CreateToken(Struct, frozen=True, kw_only=True, tag_field="type", tag="CreateToken", gc=False):
    """Let whoever has a token in. `sha256`: of the token. `expires_at`: unix microseconds; None is never."""

    name: str
    scope: Scope
    sha256: str
    expires_at: int | None = None
    key: IdempotencyKey | None = None


class RevokeToken(Struct, frozen=True, kw_only=True, tag_field="type", tag="RevokeToken", gc=False):
    """Let nobody in by this token any more."""

    name: str
    key: IdempotencyKey | None = None


Command = CreateToken | RevokeToken


class TokenCreated(Struct, frozen=True, kw_only=True, tag_field="type", tag="TokenCreated", gc=False):
    """The token is good from now on."""

    name: str
    scope: Scope
    sha256: str
    expires_at: int | None = None


class TokenRevoked(Struct, frozen=True, kw_only=True, tag_field="type", tag="TokenRevoked", gc=False):
    """The token is good for nothing from now on."""

    name: str


Event = TokenCreated | TokenRevoked


class AccessToken(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a token."""

    name: str
    revoked: bool = False


def evolve(token: AccessToken | None, event: Event) -> AccessToken:
    """The token after `event`."""
    match event:
        case TokenCreated(name=name):
            return AccessToken(name=name)
        case TokenRevoked(name=name):
            if token is None:
                raise ValueError(f"TokenRevoked of a token that was never created: {name}")
            return msgspec.structs.replace(token, revoked=True)
        case _:
            assert_never(event)


def decide(token: AccessToken | None, command: Command) -> list[Event]:
    """Create, where no token of the name is there, or revoke.

    Raises:
        Conflict: there is a token of this name.
        NotFound: there is none.
    """
    exists = token is not None and not token.revoked
    match command:
        case CreateToken(name=name, scope=scope, sha256=sha256, expires_at=expires_at):
            if exists:
                detail = f"Revoke {name} first (modelforge token revoke {name}), or take another name."
                raise Conflict("There is a token of this name", detail)
            return [TokenCreated(name=name, scope=scope, sha256=sha256, expires_at=expires_at)]
        case RevokeToken(name=name):
            if not exists:
                raise NotFound(
                    "No such token", f"There is no token {name[:100]!r}; `modelforge token list` lists them."
                )
            return [TokenRevoked(name=name)]
        case _:
            assert_never(command)


def stream_of(name: str) -> str:
    """The stream of a token."""
    return f"token:{name}"
