"""What goes of an example that is too long, token by token, and how it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.tiny_model import CHATML, build_tiny
from support.trainer_attempts import write_dataset
from transformers import AutoTokenizer, LlamaConfig

from trainer_entry.data.examples import IGNORED
from trainer_entry.data.prompts import prompt_ids, summarization_prompt
from trainer_entry.data.records import Conversation, InputOutput, Preference, Records, Turn
from trainer_entry.runtime.failures import NoTrainableTokens
from trainer_entry.tasks import preferences, summarization
from trainer_entry.tasks.text_generation import fitted, label, prepare
from trainer_entry.wire.formats import Text

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from trainer_entry.tasks.text_generation import CutTokens
    from trainer_entry.wire import Truncation

WORDS = "Rinse it until the water runs clear, then boil it. " * 3


@pytest.fixture(params=[None, CHATML, "<s>" + CHATML], ids=["plain", "chatml", "begun"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: Path) -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(tiny_model)
    found.chat_template = request.param
    return found


def cut(record: InputOutput | Conversation | Text, *how: Any) -> CutTokens:
    (example,) = fitted(record, *how)
    return example


@pytest.mark.parametrize("room", [8, 30, 57])
def test_the_end_goes_or_the_beginning_or_all_of_it(room: int, tokenizer: PreTrainedTokenizerBase) -> None:
    record = InputOutput(WORDS, WORDS)
    (whole,) = label(record, tokenizer)
    begun = int(whole.input_ids[0] == tokenizer.bos_token_id)
    # when
    right, left, drop = (cut(record, tokenizer, room, how) for how in ("right", "left", "drop"))
    # then
    assert (right.input_ids, right.labels) == (whole.input_ids[:room], whole.labels[:room])
    last = len(whole.input_ids) - room + begun
    assert left.input_ids == whole.input_ids[:begun] + whole.input_ids[last:]
    assert left.labels == whole.labels[:begun] + whole.labels[last:]
    assert left.left_out is None
    assert drop.left_out == f"It has {len(whole.input_ids)} tokens, and there is room for {room}."
    assert {one.length for one in (right, left, drop)} == {len(whole.input_ids)}


def test_what_fits_is_left_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    for record in (InputOutput("Why?", WORDS), Text(WORDS)):
        (whole,) = label(record, tokenizer)
        for how in ("right", "left", "drop"):
            example = cut(record, tokenizer, len(whole.input_ids), how)
            assert (example.input_ids, example.labels) == (whole.input_ids, whole.labels)
            assert (example.is_cut, example.left_out) == (False, None)


@pytest.mark.parametrize(
    ("truncation", "trained", "dropped", "shortened"), [("right", 3, 1, 1), ("left", 4, 0, 2), ("drop", 2, 2, 0)]
)
def test_what_is_cut_and_left_out_is_counted(
    truncation: Truncation, trained: int, dropped: int, shortened: int, tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:  # fmt: skip
    rows = [("Why?", "Yes."), ("Why?", WORDS), (WORDS, "Yes."), ("How?", "No.")]
    records = Records(
        write_dataset(tmp_path / "rows.jsonl", [{"input": asked, "output": told} for asked, told in rows])
    )
    examples = prepare(records, frozenset(), tokenizer, 36, truncation)
    assert (len(examples.train), examples.dropped, examples.cut) == (trained, dropped, shortened)
    with pytest.raises(NoTrainableTokens, match="max_seq_length"):
        prepare(records, frozenset(), tokenizer, 2, "drop")


@pytest.mark.parametrize("room", [60, 80, 100])
def test_a_causal_model_learns_the_whole_summary_of_what_fits_of_a_text(
    room: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    document = InputOutput(WORDS + WORDS, "Boil it in water.")
    (whole,) = label(summarization.asked_for(tokenizer, document), tokenizer)
    # when
    example = summarization.fitted(document, tokenizer, room)
    # then the text is cut, and nothing else
    end = "<|im_end|>"  # the tokenizer's own too
    for labels in (whole.labels, example.labels):
        assert tokenizer.decode([token for token in labels if token != IGNORED]).strip() == f"Boil it in water.{end}"
    assert room - 4 <= len(example.input_ids) <= room
    assert (example.is_cut, example.length, example.left_out) == (True, len(whole.input_ids), None)
    # and it is asked for as the playground asks
    asked = next(place for place, token in enumerate(example.labels) if token != IGNORED)
    assert any(
        prompt_ids(tokenizer, summarization_prompt(tokenizer, document.input[:size])) == example.input_ids[:asked]
        for size in range(len(document.input))
    )


def test_a_summary_longer_than_half_is_cut_too(tokenizer: PreTrainedTokenizerBase) -> None:
    example = summarization.fitted(InputOutput(WORDS, WORDS), tokenizer, 70)
    learned = sum(token != IGNORED for token in example.labels)
    assert example.is_cut
    assert 35 <= learned <= 40
    assert len(example.input_ids) == 70
    short = summarization.fitted(InputOutput("Boil it.", "Boil."), tokenizer, 70)
    assert not short.is_cut


def test_summaries_that_are_cut_are_counted(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [{"document": WORDS + WORDS, "summary": "Boil it."}, {"document": "Boil it.", "summary": "Boil."}]
    records = Records(write_dataset(tmp_path / "rows.jsonl", rows))
    examples = summarization.prepare(records, frozenset(), LlamaConfig(), tokenizer, 64)
    assert (len(examples.train), examples.dropped, examples.cut) == (2, 0, 1)


def test_pairs_of_an_encoder_decoder_model_that_are_cut_are_counted(tmp_path: Path) -> None:
    from transformers import AutoConfig

    model = build_tiny(tmp_path / "t5", "t5")
    rows = [{"document": WORDS, "summary": "Boil it."}, {"document": "Boil it.", "summary": "Boil."}]
    records = Records(write_dataset(tmp_path / "rows.jsonl", rows))
    tokenizer, config = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model)
    examples = summarization.prepare(records, frozenset(), config, tokenizer, 40)
    assert (len(examples.train), examples.dropped, examples.cut) == (2, 0, 1)


def rows_of(texts: list[tuple[str, str, str]], folder: Path) -> Records:
    names = ("prompt", "chosen", "rejected")
    return Records(write_dataset(folder / "rows.jsonl", [dict(zip(names, row, strict=True)) for row in texts]))


@pytest.mark.parametrize(
    ("truncation", "trained", "dropped", "shortened"), [("right", 3, 1, 1), ("left", 4, 0, 2), ("drop", 2, 2, 0)]
)
def test_preferences_are_cut_or_left_out_and_counted(
    truncation: Truncation, trained: int, dropped: int, shortened: int, tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:  # fmt: skip
    texts = [("Why?", "Yes.", "No."), ("Why?", WORDS, "No."), (WORDS, "Yes.", "No."), ("How?", "Yes.", "No.")]
    purpose = ("text-generation", "dpo")
    examples = preferences.prepare(
        rows_of(texts, tmp_path), frozenset(), tokenizer, purpose, 36, truncation  # type: ignore[arg-type]
    )  # fmt: skip
    assert (len(examples.train), examples.dropped, examples.cut) == (trained, dropped, shortened)


@pytest.mark.parametrize("told", ["Yes.", WORDS])
def test_the_beginning_of_a_preference_goes_from_its_prompt_first(
    told: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    record = Preference([Turn("user", WORDS)], [Turn("assistant", told)], [Turn("assistant", "No.")])
    row = preferences.row_of(1, record, tokenizer, "text-generation")
    begun = int(row.prompt_ids[0] == tokenizer.bos_token_id)
    # when
    cut_row = row.fitted(tokenizer, 30, "left")
    # then
    assert cut_row.prompt_ids[:begun] == row.prompt_ids[:begun]
    asked = cut_row.prompt_ids[begun:]
    assert asked == row.prompt_ids[len(row.prompt_ids) - len(asked) :]
    assert row.chosen_ids[-len(cut_row.chosen_ids) :] == cut_row.chosen_ids
    assert (cut_row.rejected_ids, max(cut_row.lengths)) == (row.rejected_ids, 30)
    if told == "Yes.":
        assert cut_row.chosen_ids == row.chosen_ids
