"""A tokenizer with more tokens than its model: what it writes is embedded, or refused with the line it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.tiny_model import build_tiny_model
from support.trainer_attempts import questions, write_dataset
from transformers import AutoTokenizer

from trainer_entry.data.embedding import check_examples
from trainer_entry.data.records import Records
from trainer_entry.providers.huggingface import Source, find
from trainer_entry.runtime.failures import TokenWithoutEmbedding
from trainer_entry.strategies.rlhf import prompts_of
from trainer_entry.tasks import preferences, text_generation

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = [{"input": "Why?", "output": "Because."}]
NEW = "<new>"


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A model whose tokenizer got a token more, and one to pad with; its embedding was left as it was."""
    folder = build_tiny_model(tmp_path / "extended")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([NEW], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(folder)
    return folder


def check(source: Source, path: Path, records: list[dict[str, str]]) -> None:
    held_out = frozenset({len(records) - 1}) if len(records) > 1 else frozenset[int]()
    read = Records(write_dataset(path, records))
    if "chosen" in records[0]:
        examples = preferences.prepare(read, held_out, source.tokenizer, ("text-generation", "rlhf"), 64)
        assert prompts_of(examples.train, source.tokenizer)
    else:
        examples = text_generation.prepare(read, held_out, source.tokenizer, 64)
    check_examples(examples, source.config, source.tokenizer)


def test_a_token_that_no_record_has_is_in_nobodys_way(extended: Path, tmp_path: Path) -> None:
    source = find(str(extended))
    assert source.tokenizer.pad_token == source.tokenizer.eos_token  # and what is padded with has an embedding
    check(source, tmp_path / "data.jsonl", questions(4))


@pytest.mark.parametrize(
    ("records", "line"),
    [
        ([*PLAIN, {"input": f"Why {NEW}?", "output": "Because."}, *PLAIN], 2),
        ([*PLAIN, *PLAIN, {"input": "Why?", "output": f"Be{NEW}cause."}], 3),  # held out
        ([{"prompt": "Why?", "chosen": "Because.", "rejected": f"Be{NEW}cause."}], 1),
    ],
)
def test_a_token_without_an_embedding_is_named_with_its_line(
    records: list[dict[str, str]], line: int, extended: Path, tmp_path: Path
) -> None:
    with pytest.raises(TokenWithoutEmbedding, match=f"Line {line} of the dataset has the token '{NEW}'") as refused:
        check(find(str(extended)), tmp_path / "data.jsonl", records)
    assert "resize_token_embeddings" in str(refused.value)
