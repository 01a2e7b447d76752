"""The probabilities of an answer's tokens, as chats and responses have them."""

from collections.abc import Sequence

from msgspec import Struct

from trainer_entry import wire


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A token that could have come."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


class ContentLogprob(Struct, frozen=True, kw_only=True):
    """A token of the answer, and the likeliest ones in its place."""

    token: str
    bytes: tuple[int, ...]
    logprob: float
    top_logprobs: list[TopLogprob]


def logprobs_of(tokens: Sequence[wire.TokenLogprob]) -> list[ContentLogprob]:
    """The natural logarithms of the probabilities of tokens, before temperature and top_p."""
    return [
        ContentLogprob(
            token=one.text,
            bytes=one.bytes,
            logprob=one.logprob,
            top_logprobs=[TopLogprob(token=other.text, bytes=other.bytes, logprob=other.logprob) for other in one.top],
        )
        for one in tokens
    ]
