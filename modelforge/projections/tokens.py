"""The tokens that clients may come with."""

from msgspec import Struct

from modelforge.domain.access_token import Scope, TokenCreated
from modelforge.projections.jobs import iso


class TokenDetails(Struct, frozen=True, kw_only=True):
    """A token, less the token itself. `expires_at` is null where it never does."""

    name: str
    scope: Scope
    created_at: str
    expires_at: str | None = None


class KnownToken(Struct, frozen=True, kw_only=True):
    """A token as it is told from others: by its SHA-256. `expires_at`: unix microseconds."""

    details: TokenDetails
    sha256: str
    expires_at: int | None


def known_token(event: TokenCreated, at: int) -> KnownToken:
    """A token, from its creation."""
    expires_at = None if event.expires_at is None else iso(event.expires_at)
    details = TokenDetails(name=event.name, scope=event.scope, created_at=iso(at), expires_at=expires_at)
    return KnownToken(details=details, sha256=event.sha256, expires_at=event.expires_at)
