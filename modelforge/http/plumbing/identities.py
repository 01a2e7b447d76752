"""Who asks: a token, the owner's key, a browser that was signed in, or on this machine somebody who need not say."""

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.domain.access_token import Scope
from modelforge.domain.messages import API
from modelforge.errors import Unauthorized
from modelforge.http.plumbing.openai_errors import is_asked
from modelforge.projections.tokens import KnownToken

COOKIE = "modelforge_session"
TOKEN_PREFIX = "mf_"  # noqa: S105 - what tokens begin with, so that they are known where they leak
_BEARER = "bearer "
OWNER = "owner"
"""The name of whoever can read the data directory; no token has it."""
_CODE_SECONDS = 3600.0
SESSION_SECONDS = 7 * 86_400
_MOST_SESSIONS = 1000


class Identity(Struct, frozen=True, kw_only=True, gc=False):
    """Who asks. `name`: of the token; None of somebody who was asked for none. `expires_at`: unix seconds.

    `session`: of a browser that was signed in, by its hash. Such a one is who made its link, and lasts no longer.
    """

    name: str | None
    scope: Scope
    expires_at: float | None = None
    session: str | None = None

    @property
    def actor(self) -> str:
        """Who this is in the log."""
        return API if self.name is None else f"{API}:{self.name}"


OWNER_IDENTITY = Identity(name=OWNER, scope="admin")
IDENTITY = web.RequestKey("identity", Identity)


def actor_of(request: web.Request) -> str:
    """Who has a record written by this request."""
    return request[IDENTITY].actor


def new_token() -> str:
    """A token that nobody can guess: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def sha256_of(token: str) -> str:
    """What is kept of a token, in hexadecimal."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Identities:
    """Tells who asks. `tokens`: those that there are, by name. `required`: one is needed, though there be none."""

    def __init__(self, *, required: bool, clock: Callable[[], float] = time.time) -> None:
        self.tokens: Mapping[str, KnownToken] = {}
        self._required = required
        self._clock = clock
        self._owner_key = new_token()
        self._codes: dict[str, Identity] = {}
        self._sessions: dict[str, Identity] = {}

    @property
    def owner_key(self) -> str:
        """What the owner of the data directory shows; it is another one each time the server starts."""
        return self._owner_key

    @property
    def are_required(self) -> bool:
        """Whether who asks has to say who they are."""
        return self._required or bool(self.tokens)

    def has_usable_token(self) -> bool:
        """Whether anybody could get in with a token."""
        return any(token.expires_at is None or self._seconds(token) > self._clock() for token in self.tokens.values())

    def identify(self, request: web.Request) -> Identity | None:
        """Who asks; None where nothing was said, and something had to be.

        Raises:
            Unauthorized: what was shown is good for nothing, or no longer.
        """
        shown = request.headers.getall("Authorization", ())
        if shown:
            try:
                return self._of_token(shown[0], len(shown))
            except Unauthorized:
                # OpenAI's clients cannot but show a key: where nobody is asked for a token, any will do there.
                if self.are_required or not is_asked(request.path):
                    raise
        session = self._of_session(request.cookies.get(COOKIE))
        if session is not None or self.are_required:
            return session
        return Identity(name=None, scope="write")  # tokens are the owner's to make

    def _of_token(self, shown: str, times: int) -> Identity:
        token = shown[len(_BEARER) :].strip()
        if times > 1 or not shown[: len(_BEARER)].lower() == _BEARER or not token:
            raise Unauthorized("The Authorization header cannot be used", "It takes one 'Bearer TOKEN'.")
        digest = sha256_of(token)
        found: KnownToken | None = None
        for known in self.tokens.values():  # all of them, so that the time says nothing
            if secrets.compare_digest(known.sha256, digest):
                found = known
        if secrets.compare_digest(sha256_of(self._owner_key), digest):
            return OWNER_IDENTITY
        if found is None:
            raise Unauthorized("The token is not known", "It was revoked, or never made; ask for another.")
        expires_at = None if found.expires_at is None else self._seconds(found)
        if expires_at is not None and expires_at <= self._clock():
            raise Unauthorized("The token has expired", f"It was good until {found.details.expires_at}.")
        return Identity(name=found.details.name, scope=found.details.scope, expires_at=expires_at)

    @staticmethod
    def _seconds(token: KnownToken) -> float:
        return (token.expires_at or 0) / 1_000_000

    def _of_session(self, cookie: str | None) -> Identity | None:
        """Who signed a browser in; an old cookie is no reason to refuse, but none to let in."""
        return None if cookie is None else _find(self._sessions, cookie, self._clock())

    def make_code(self, maker: Identity) -> str:
        """A code that signs one browser in, as who made it, once, within the hour."""
        return _make(self._codes, maker, self._clock(), _CODE_SECONDS)

    def open_session(self, code: str) -> str:
        """Sign a browser in; what it is to show from now on.

        Raises:
            Unauthorized: the code was used, or is old, or is none.
        """
        made = _find(self._codes, code, self._clock())
        if made is None:
            remedy = "Get another: `modelforge token link` prints one."
            raise Unauthorized("The link was used already, or is too old", remedy)
        maker = self._codes.pop(sha256_of(code))
        token = self.tokens.get(maker.name or "")
        until = None if token is None or token.expires_at is None else self._seconds(token)
        return _make(self._sessions, msgspec.structs.replace(maker, expires_at=until), self._clock(), SESSION_SECONDS)

    def close_session(self, cookie: str | None) -> str:
        """Sign a browser out; the hash by which its session was known."""
        digest = sha256_of(cookie or "")
        self._sessions.pop(digest, None)
        return digest

    def forget(self, name: str) -> None:
        """Sign out whoever was signed in by a token."""
        for kept in (self._codes, self._sessions):
            for digest in [digest for digest, identity in kept.items() if identity.name == name]:
                del kept[digest]


def _make(kept: dict[str, Identity], maker: Identity, now: float, seconds: float) -> str:
    """A new secret, of which the hash is kept, with whom it stands for and until when; the oldest are forgotten."""
    for digest in [digest for digest, identity in kept.items() if (identity.expires_at or 0) <= now]:
        del kept[digest]
    while len(kept) >= _MOST_SESSIONS:
        del kept[next(iter(kept))]
    secret = secrets.token_urlsafe(32)
    digest, until = sha256_of(secret), min(now + seconds, maker.expires_at or math.inf)
    kept[digest] = Identity(name=maker.name, scope=maker.scope, expires_at=until, session=digest)
    return secret


def _find(kept: Mapping[str, Identity], secret: str, now: float) -> Identity | None:
    """Whom a secret stands for, if it is still good."""
    digest, found = sha256_of(secret), None
    for known, identity in kept.items():
        if secrets.compare_digest(known, digest) and (identity.expires_at or 0) > now:
            found = identity
    return found
