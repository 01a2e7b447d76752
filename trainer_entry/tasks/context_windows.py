"""Extractive question answering: where in a context the answer to a question stands, if it stands there.

A context that is longer than the model takes is read in windows that overlap. Training labels each window with the
answer's first and last token; evaluation and the playground find the best span of all windows by the same rules.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from msgspec import Struct
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.records import Span
from trainer_entry.runtime.failures import PromptTooLong

_BEST = 20
"""How many of the likeliest first and last tokens of a window are tried with each other, as SQuAD's evaluation does."""
_LEAST = -1e30
"""What a figure that is no number counts as."""

Offsets = tuple[int, int]
"""Where something stands in the context: its first character, and the one after its last."""


class Window(Struct, frozen=True, gc=False):
    """The question and a part of the context, as the model takes them.

    `offsets`: where each token stands in the context; None for a token that is not of it. `null`: the place of the
    token that stands for "no answer". `covers`: the part of the context. `token_type_ids`: None for a tokenizer
    without them.
    """

    input_ids: list[int]
    attention_mask: list[int]
    token_type_ids: list[int] | None
    offsets: list[Offsets | None]
    null: int
    covers: Offsets


class Answer(Struct, frozen=True, gc=False):
    """The best span, or none: then `text` is empty, and `start` and `end` are None.

    `score`: how likely this answer is among the best ones, 0 to 1. `null_score`: the same of "no answer"; 0 where that
    is not allowed. `tokens`: how many the span has.
    """

    text: str
    start: int | None
    end: int | None
    score: float
    null_score: float
    tokens: int


def windows(
    tokenizer: PreTrainedTokenizerBase, question: str, context: str, max_length: int, stride: int
) -> list[Window]:
    """The question with each part of the context. Neighbours share `stride` tokens, or as many as there is room for.

    A question that would take more than half of the room is cut.

    Raises:
        PromptTooLong: `max_length` has no room for both.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    question, length = _fitted(tokenizer, _parted(tokenizer, question.strip()), room // 2)
    room -= length
    if room < 1:
        raise PromptTooLong(f"{max_length} tokens have no room for a question and a context.")
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=max_length,
        stride=max(0, min(stride, room // 2)),  # each window must go on
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=True,
    )
    offsets = [_context_offsets(encoded, place) for place in range(len(encoded["input_ids"]))]
    known = [token for tokens in offsets for token in tokens if token is not None]
    first, last = (min(start for start, _ in known), max(end for _, end in known)) if known else (0, 0)
    return [
        Window(
            input_ids=list(encoded["input_ids"][place]),
            attention_mask=list(encoded["attention_mask"][place]),
            token_type_ids=list(encoded["token_type_ids"][place]) if "token_type_ids" in encoded else None,
            offsets=tokens,
            null=_null_place(encoded["input_ids"][place], tokenizer.cls_token_id),
            covers=_covered(tokens, first, last, len(context)),
        )
        for place, tokens in enumerate(offsets)
    ]


def label(window: Window, answers: list[Span]) -> tuple[int, int]:
    """The places of the first and the last token of the first answer that lies in the window whole.

    Where there is none, both are the place that stands for "no answer".
    """
    for answer in answers:
        start = answer.start + len(answer.text) - len(answer.text.lstrip())
        end = answer.start + len(answer.text.rstrip())
        if not window.covers[0] <= start < end <= window.covers[1]:
            continue
        touching = [
            place
            for place, token in enumerate(window.offsets)
            if token is not None and token[0] < end and token[1] > start
        ]
        if touching:
            return touching[0], touching[-1]
    return window.null, window.null


def best_span(
    windows: Sequence[Window],
    start_logits: Sequence[Any],
    end_logits: Sequence[Any],
    context: str,
    max_answer_tokens: int = 30,
    *,
    allow_null: bool = True,
) -> Answer:
    """The likeliest answer of all windows, from the model's figures for each of their tokens.

    A row of figures may be longer than its window: the rest is padding. "No answer" is as likely as its least likely
    window says, since it holds only if no window has an answer.
    """
    found: dict[Offsets, tuple[float, int]] = {}
    null = math.inf
    for window, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        first, last = _numbers(starts, window), _numbers(ends, window)
        null = min(null, float(first[window.null] + last[window.null]))
        for span, score, tokens in _candidates(window, first, last, context, max_answer_tokens):
            if span not in found or score > found[span][0]:
                found[span] = score, tokens
    scores = [score for score, _ in found.values()]
    if allow_null or not found:
        scores.append(null)
    top = max(scores)
    total = sum(math.exp(score - top) for score in scores)
    null_score = math.exp(null - top) / total if len(scores) > len(found) else 0.0
    if not found or (allow_null and null == top):
        return Answer("", None, None, null_score, null_score, 0)
    (start, end), (score, tokens) = max(found.items(), key=lambda item: item[1][0])
    return Answer(context[start:end], start, end, math.exp(score - top) / total, null_score, tokens)


def _candidates(
    window: Window, first: np.ndarray, last: np.ndarray, context: str, max_answer_tokens: int
) -> Iterator[tuple[Offsets, float, int]]:
    """The likeliest spans of a window without the spaces around them, each with its figure and number of tokens."""
    places = np.array([place for place, token in enumerate(window.offsets) if token is not None], dtype=int)
    starts = places[np.argsort(-first[places], kind="stable")[:_BEST]]
    ends = places[np.argsort(-last[places], kind="stable")[:_BEST]]
    # A token alone is always a span: without these there might be none.
    for start, end in {*product(starts.tolist(), ends.tolist()), *((place, place) for place in starts.tolist())}:
        begin, stop = window.offsets[start], window.offsets[end]
        if begin is None or stop is None or not 0 <= end - start < max_answer_tokens:
            continue
        text = context[begin[0] : stop[1]]
        if text.strip():
            span = begin[0] + len(text) - len(text.lstrip()), begin[0] + len(text.rstrip())
            yield span, float(first[start] + last[end]), end - start + 1


def _numbers(logits: Any, window: Window) -> np.ndarray:
    row = np.asarray(logits, dtype=np.float64)[: len(window.input_ids)]
    return np.nan_to_num(row, nan=_LEAST, posinf=-_LEAST, neginf=_LEAST)


def _parted(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The question so that it ends before the context begins: some tokenizers put nothing between two texts."""
    parts = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
    return question if parts else question + "\n"


def _fitted(tokenizer: PreTrainedTokenizerBase, question: str, room: int) -> tuple[str, int]:
    """The question, cut where `room` tokens end, and how many tokens it has."""
    while True:
        encoded = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = encoded["offset_mapping"]
        if len(offsets) <= room or not question:
            return question, len(offsets)
        # A cut text may have more tokens than it had within the whole: then it is cut again.
        question = question[: min(offsets[max(room, 0)][0], len(question) - 1)]


def _context_offsets(encoded: Any, place: int) -> list[Offsets | None]:
    """Where each token stands in the context. Some tokenizers have tokens for nothing: they are not of it."""
    return [
        (int(start), int(end)) if sequence == 1 and end > start else None
        for sequence, (start, end) in zip(encoded.sequence_ids(place), encoded["offset_mapping"][place], strict=True)
    ]


def _covered(tokens: list[Offsets | None], first: int, last: int, length: int) -> Offsets:
    """The part of the context that a window has. What no token stands for at the context's ends belongs to it."""
    known = [token for token in tokens if token is not None]
    if not known:
        return 0, 0
    start, end = min(start for start, _ in known), max(end for _, end in known)
    return (0 if start == first else start), (length if end == last else end)


def _null_place(input_ids: list[int], cls_token_id: int | None) -> int:
    return input_ids.index(cls_token_id) if cls_token_id is not None and cls_token_id in input_ids else 0
