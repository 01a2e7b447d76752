"""Records of every spelling for text generation, token by token: what is written, and what carries loss."""

from __future__ import annotations

import copy
import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.checked import checked, dataset_of
from support.tiny_model import CHATML
from transformers import AutoTokenizer

from modelforge.domain.purposes import trainable
from trainer_entry.data.records import Records
from trainer_entry.tasks.text_generation import IGNORED, LabelledTokens, label
from trainer_entry.wire.formats import FORMATS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CORPUS: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("formats_corpus.jsonl").read_text().splitlines()
]
"""Each with what it `renders`, where what carries loss stands between « and »."""
WITH_TOOLS = (
    "{% if tools %}<|im_start|>tools\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}"
    "<call>{{ call.function.name }} {{ call.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
    "{{ raise_exception('Turns must alternate') }}{% endif %}{% endfor %}"
)
TEMPLATES = {"tools": WITH_TOOLS, "alternating": ALTERNATING + CHATML, "none": None}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def marked(example: LabelledTokens, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of an example, with marks around what carries loss."""
    pairs = zip(example.input_ids, example.labels, strict=True)
    assert all(lab in {IGNORED, token} for token, lab in zip(example.input_ids, example.labels, strict=True))
    written = ""
    for is_learned, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = tokenizer.decode([token for token, _ in run])
        written += f"«{text}»" if is_learned else str(text)
    return written


def records_of(record: object, folder: Path) -> tuple[str | None, Records]:
    """What the check makes of a line, as the trainer reads it."""
    found, content = checked(json.dumps(record).encode() + b"\n")
    assert found.report.valid, found.report.errors
    return found.format, Records(dataset_of(found, content, folder))


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["shows"])
def test_a_record_is_written_and_learned_as_it_says(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    writer = copy.copy(tokenizer)
    writer.chat_template = TEMPLATES[row["template"]]
    _, records = records_of(row["record"], tmp_path)
    assert [marked(example, writer) for record in records for example in label(record, writer)] == [row["renders"]]


def test_the_corpus_has_every_format_that_text_generation_is_taught_by(tmp_path: Path) -> None:
    shown = {records_of(row["record"], tmp_path)[0] for row in CORPUS}
    taught = {name for name in FORMATS if "text-generation" in trainable(name)[0] and "sft" in trainable(name)[1]}
    assert shown == taught
