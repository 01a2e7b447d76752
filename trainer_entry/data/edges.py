"""The edges of a text: one token that begins it and one that ends it, whoever wrote them.

Four hands write them: the tokenizer, the chat template, the record, and the trainer. One rule holds for all strategies,
for previews and for the playground:

    by hand, at the edges      taken away; what stands in the middle of a text is content
    with a chat template       it says how a text begins, and how a turn ends; what it does not end, the eos token does
    without one                the tokenizer's beginning, or the one that was written by hand, and the eos token
    a text as it stands        the same; an end that was written by hand stays, where generation stops at it
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from trainer_entry.data.templates import write_by_template
from trainer_entry.wire.end_tokens import KNOWN_ENDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from trainer_entry.wire import Truncation


class Edges(Struct, frozen=True, gc=False):
    """How a model's texts begin and end.

    `stops`: the tokens that generation stops at, those of the chat template among them. `ends`: all that end a text by
    hand. `special`: all that can end a turn.
    """

    begin: str | None
    stops: tuple[str, ...]
    ends: tuple[str, ...]
    special: tuple[str, ...]

    def closed_length(self, text: str) -> int | None:
        """How long a text is up to its last token, where that can end a turn; what follows is never generated."""
        closed = text.rstrip()
        return len(closed) if closed.endswith(self.special) else None


class Trimmed(Struct, frozen=True, gc=False):
    """A text without the edges that were written by hand. `begun`: it had a beginning; `ended`: its first end."""

    text: str
    begun: bool = False
    ended: str | None = None


def edges_of(tokenizer: PreTrainedTokenizerBase) -> Edges:
    """How texts begin and end for a tokenizer, with the chat template that it has now."""
    return _edges_of(tokenizer, str(tokenizer.chat_template))


def trim(text: str, edges: Edges) -> Trimmed:
    """The text without beginning and end tokens at its edges, nor the space before an end; else as it is."""
    begun = False
    while edges.begin and text.lstrip().startswith(edges.begin):
        text, begun = text.lstrip()[len(edges.begin) :], True
    ended = None
    while edges.ends and (closed := text.rstrip()).endswith(edges.ends):
        end = next(end for end in edges.ends if closed.endswith(end))
        text, ended = closed[: -len(end)].rstrip(), end if ended is None or end in edges.stops else ended
    return Trimmed(text, begun, ended)


def bare(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text without the edges that were written by hand."""
    return trim(text, edges_of(tokenizer)).text


def opening_ids(tokenizer: PreTrainedTokenizerBase, *, begun: bool) -> list[int]:
    """What stands before a text that no template begins; `begun`: it had a beginning that was written by hand."""
    opening, begin = _opening(tokenizer), tokenizer.bos_token_id
    return [*opening, begin] if begun and begin is not None and begin not in opening else opening


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A text as it stands, from its beginning through one end token."""
    edges = edges_of(tokenizer)
    trimmed = trim(text, edges)
    ids = opening_ids(tokenizer, begun=trimmed.begun) + content_ids(tokenizer, trimmed.text)
    end = trimmed.ended if trimmed.ended in edges.stops else tokenizer.eos_token
    return ids if end is None else [*ids, *_ids_of(tokenizer, end)]


def kept_places(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, room: int, truncation: Truncation
) -> Sequence[int]:
    """Which of a text's tokens there is room for: the first ones, or its beginning token and the last ones."""
    if len(ids) <= room or truncation != "left":
        return range(min(len(ids), room))
    begun = int(tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id and room > 1)
    return [*range(begun), *range(len(ids) - room + begun, len(ids))]


def content_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text, and none around them."""
    return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])


def end_token_ids(tokenizer: PreTrainedTokenizerBase, configured: int | list[int] | None) -> list[int]:
    """Where generation stops: the model's own end tokens, and those that its chat template ends a turn with."""
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    ids.update(_ids_of(tokenizer, *edges_of(tokenizer).stops))
    return sorted(number for number in ids if isinstance(number, int))


def _ids_of(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> list[int]:
    """The numbers of tokens; to ask for the whole vocabulary would take longer than a text does."""
    found = tokenizer.convert_tokens_to_ids([*tokens])
    return found if isinstance(found, list) else [found]


@lru_cache(maxsize=8)
def _edges_of(tokenizer: PreTrainedTokenizerBase, template: str) -> Edges:
    del template  # what is remembered holds for this one
    added = tokenizer.added_tokens_decoder.values()
    special = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
    begin, eos = tokenizer.bos_token, tokenizer.eos_token
    written = _written_after_an_answer(tokenizer)
    stops = {token for token in special if token in written and token != tokenizer.unk_token} - {begin}
    stops |= {eos} if eos is not None else set()
    ends = stops | (KNOWN_ENDS & special)
    return Edges(
        begin=begin,
        stops=_longest_first(stops),
        ends=_longest_first(ends),
        special=_longest_first(special | stops),
    )


def _longest_first(tokens: set[str]) -> tuple[str, ...]:
    return tuple(sorted(filter(None, tokens), key=lambda token: (-len(token), token)))


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text; what it puts after one is left to whoever knows what follows."""
    probe = "a"
    framed, inner = list(tokenizer(probe)["input_ids"]), content_ids(tokenizer, probe)
    place = next((at for at in range(len(framed)) if inner and framed[at : at + len(inner)] == inner), 0)
    return framed[:place]


def _written_after_an_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes after an assistant's words; nothing, where there is none or it cannot."""
    if tokenizer.chat_template is None:
        return ""
    turns: list[dict[str, Any]] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    try:
        text = write_by_template(tokenizer, turns)
    except Exception:  # noqa: BLE001 - it says so again where a record is written
        return ""
    before, _, after = text.rpartition("!")
    return after if before else ""
