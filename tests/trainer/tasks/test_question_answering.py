"""Where an answer stands: windows over a context, their labels, and the best span of all of them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_model import Architecture, build_tiny
from transformers import AutoTokenizer

from trainer_entry.data.records import Span
from trainer_entry.runtime.failures import PromptTooLong
from trainer_entry.tasks.context_windows import Window, best_span, label, windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARCHITECTURES: list[Architecture] = ["bert", "roberta", "t5", "gpt2"]
CONTEXT = "Yeast fills the dough with tiny bubbles of gas. Blanching is to boil food very briefly. Rice is rinsed."
# What tokenizers treat in ways of their own: accents, bytes of one character, spaces, what they drop altogether.
WORDS = st.sampled_from(["bread", "the", "Über", "naïve", "—", "🍞", "7", ".", "\n", "  ", "\t", "rice", "\x00", "é"])
CONTEXTS = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[Architecture, PreTrainedTokenizerBase]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {name: AutoTokenizer.from_pretrained(build_tiny(folder / name, name)) for name in ARCHITECTURES}


def parts(window: Window, context: str) -> list[str]:
    return [context[token[0] : token[1]] for token in window.offsets if token is not None]


def figures(found: list[Window], *likely: tuple[int, int, float]) -> tuple[list[list[float]], list[list[float]]]:
    """Figures for every token: 0, but for the places (window, token) that are given one."""
    rows = [[0.0] * len(window.input_ids) for window in found]
    for window, place, figure in likely:
        rows[window][place] = figure
    return rows, [list(row) for row in rows]


def place_of(window: Window, context: str, word: str) -> int:
    """The token that the first letter of a word stands in."""
    start = context.index(word)
    return next(place for place, token in enumerate(window.offsets) if token and token[0] <= start < token[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_windows_read_the_whole_context_and_overlap(
    architecture: Architecture, tokenizers: dict[Architecture, PreTrainedTokenizerBase]
) -> None:
    # when
    found = windows(tokenizers[architecture], "Why does bread rise?", CONTEXT * 3, 64, 8)
    # then
    assert len(found) > 1
    assert all(len(window.input_ids) <= 64 for window in found)
    assert found[0].covers[0] == 0
    assert found[-1].covers[1] == len(CONTEXT * 3)
    for before, after in pairwise(found):
        assert after.covers[0] < before.covers[1] < after.covers[1]
        assert parts(before, CONTEXT * 3)[-8:] == parts(after, CONTEXT * 3)[:8]


def test_the_special_tokens_are_the_tokenizers_own(
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    texts = {}
    for architecture, tokenizer in tokenizers.items():
        (window,) = windows(tokenizer, "Why?", "the dough", 64, 8)
        texts[architecture] = tokenizer.decode(window.input_ids)
        assert window.attention_mask == [1] * len(window.input_ids)
        assert (window.token_type_ids is not None) == (architecture == "bert")
    assert texts == {
        "bert": "[CLS] why? [SEP] the dough [SEP]",
        "roberta": "<s>Why?</s></s>the dough</s>",
        "t5": "Why?</s> the dough</s>",
        "gpt2": "Why?\nthe dough",  # it has nothing to put between two texts
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=60)
@given(context=CONTEXTS, cut=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_an_answer_that_is_shorter_than_the_overlap_is_labelled_in_a_window(
    architecture: Architecture,
    context: str,
    cut: tuple[float, float],
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    # given
    tokenizer = tokenizers[architecture]
    start, end = sorted(round(place * len(context)) for place in cut)
    answer = Span(context[start:end], start)
    (whole,) = windows(tokenizer, "Why?", context, 4096, 0)
    first, last = label(whole, [answer])
    # when
    found = windows(tokenizer, "Why?", context, 80, 32)
    labels = [(window, *label(window, [answer])) for window in found]
    # then
    said = [
        (window.offsets[begin][0], window.offsets[stop][1], stop - begin)
        for window, begin, stop in labels
        if begin != window.null
    ]
    assert all(stop == window.null for window, begin, stop in labels if begin == window.null)
    if first == whole.null:  # an answer of spaces alone, or of what the tokenizer drops
        assert said == []
        return
    expected = (whole.offsets[first][0], whole.offsets[last][1], last - first)
    assert set(said) <= {expected}
    assert said or last - first >= 31
    begin, stop, _ = expected
    spoken = [place for place in range(start, end) if not context[place].isspace() and context[place] != "\x00"]
    assert all(begin <= place < stop for place in spoken)
    assert context[begin:start].strip() == context[end:stop].strip() == "" or cuts_a_word(context, start, end)


def cuts_a_word(context: str, start: int, end: int) -> bool:
    """Whether an answer begins or ends within a word, whose token reaches beyond it."""
    inside = (place for place in (start, end) if 0 < place < len(context))
    return any(not context[place - 1].isspace() and not context[place].isspace() for place in inside)


def test_an_answer_that_is_not_in_the_window_is_the_null_token(
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    found = windows(tokenizers["bert"], "Why?", CONTEXT, 16, 2)
    answer = Span("dough", CONTEXT.index("dough"))
    labels = [label(window, [answer]) for window in found]
    assert labels[0] != (0, 0)
    assert labels[-1] == (0, 0)
    assert {label(window, []) for window in found} == {(0, 0)}
    # then the next answer is looked for
    assert label(found[-1], [answer, Span("rinsed", CONTEXT.index("rinsed"))]) != (0, 0)


def test_a_long_question_leaves_room_for_the_context(
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    for tokenizer in tokenizers.values():
        found = windows(tokenizer, "why " * 500, CONTEXT, 24, 1000)
        assert all(len(window.input_ids) <= 24 for window in found)
        assert found[-1].covers[1] == len(CONTEXT)
        with pytest.raises(PromptTooLong, match="3 tokens"):
            windows(tokenizers["bert"], "Why?", CONTEXT, 3, 0)


def test_the_best_span_is_found_in_whichever_window_it_stands(
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    # given
    found = windows(tokenizers["roberta"], "What is rinsed?", CONTEXT, 32, 8)
    window = found[-1]
    first, last = place_of(window, CONTEXT, "is rinsed"), place_of(window, CONTEXT, "rinsed")
    starts, ends = figures(found)
    starts[-1][first] = ends[-1][last] = 9.0
    # when
    answer = best_span(found, starts, ends, CONTEXT)
    # then
    assert CONTEXT[answer.start : answer.end] == answer.text
    assert answer.text.startswith("is r")
    assert answer.tokens == last - first + 1
    assert 0.9 < answer.score <= 1
    assert answer.score + answer.null_score <= 1


def test_no_answer_is_the_answer_where_it_is_the_likeliest_in_every_window(
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    found = windows(tokenizers["bert"], "Why?", CONTEXT, 16, 2)
    everywhere = figures(found, *((number, 0, 9.0) for number in range(len(found))))
    # when
    none = best_span(found, *everywhere, CONTEXT)
    # then
    assert (none.text, none.start, none.end, none.tokens) == ("", None, None, 0)
    assert none.score == none.null_score > 0.9
    # a model that was never told of questions without an answer must give one
    some = best_span(found, *everywhere, CONTEXT, allow_null=False)
    assert some.text
    assert some.null_score == 0
    # one window that knows better is enough
    but_one = figures(found, *((number, 0, 9.0) for number in range(1, len(found))), (0, 8, 4.0))
    assert best_span(found, *but_one, CONTEXT).text


def test_a_span_is_no_longer_than_allowed_and_never_backwards(
    tokenizers: dict[Architecture, PreTrainedTokenizerBase],
) -> None:
    (window,) = windows(tokenizers["bert"], "Why?", CONTEXT, 64, 2)
    first, last = place_of(window, CONTEXT, "fills"), place_of(window, CONTEXT, "bubbles")
    starts, ends = figures([window])
    starts[0][first] = ends[0][last] = 9.0
    assert best_span([window], starts, ends, CONTEXT, allow_null=False).text == "fills the dough with tiny bubbles"
    assert best_span([window], starts, ends, CONTEXT, 2, allow_null=False).tokens <= 2
    backwards = best_span([window], ends, starts, CONTEXT, allow_null=False)
    assert backwards.start is not None
    assert backwards.text == CONTEXT[backwards.start : backwards.end] != ""


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_figures_that_are_no_numbers_make_no_score_that_is_none(
    broken: float, tokenizers: dict[Architecture, PreTrainedTokenizerBase]
) -> None:
    found = windows(tokenizers["bert"], "Why?", CONTEXT, 32, 2)
    rows: Any = [[broken] * 40 for _ in found]
    answer = best_span(found, rows, rows, CONTEXT)
    assert 0 <= answer.score <= 1
    assert 0 <= answer.null_score <= 1
