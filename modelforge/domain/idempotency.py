"""The key under which a client may send the same request again and get the first answer."""

from msgspec import Struct


class IdempotencyKey(Struct, frozen=True, kw_only=True, gc=False):
    """The `Idempotency-Key` of a request, and the SHA-256 of what it asked: path and body."""

    value: str
    request_sha256: str
