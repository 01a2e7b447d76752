"""Whether a model has an embedding of every token that it is given: a tokenizer may have more tokens than it."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer_entry.data.examples import LINE, Examples
from trainer_entry.providers.huggingface import embedded_tokens
from trainer_entry.runtime.failures import TokenWithoutEmbedding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_TOKENS = ("input_ids", "labels", "prompt_ids", "chosen_ids", "rejected_ids")
"""The columns that have tokens; a label that carries no loss is below all of them."""


def check_examples(examples: Examples, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse examples with a token that the model has no embedding of.

    Raises:
        TokenWithoutEmbedding: the message names the token, and the line that it stands in.
    """
    count = embedded_tokens(config)
    if count is None or len(tokenizer) <= count:
        return
    check_padding(count, tokenizer)
    for rows in (examples.train, examples.evaluation):
        if rows is not None:
            _check_rows(rows, count, tokenizer)


def check_padding(count: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a padding token that the model, which has `count` tokens, has no embedding of.

    Raises:
        TokenWithoutEmbedding: the message names it.
    """
    padding = tokenizer.pad_token_id
    if padding is not None and padding >= count:
        raise TokenWithoutEmbedding(_refusal(f"The padding token is {tokenizer.pad_token!r}", padding, count))


def check_line(line: int, ids: Iterable[int], count: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a line of the dataset with a token that the model, which has `count` of them, has no embedding of.

    Raises:
        TokenWithoutEmbedding: the message names the first one.
    """
    for token in ids:
        if token >= count:
            text = tokenizer.convert_ids_to_tokens(token)
            raise TokenWithoutEmbedding(_refusal(f"Line {line} of the dataset has the token {text!r}", token, count))


def _check_rows(rows: Dataset, count: int, tokenizer: PreTrainedTokenizerBase) -> None:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    for name in set(_TOKENS).intersection(rows.column_names):
        column: Any = rows.data.column(name)
        most = pc.max(pc.list_flatten(column)).as_py()
        if most is not None and most >= count:
            for row in rows.select_columns([LINE, name]):
                check_line(row[LINE], row[name], count, tokenizer)


def _refusal(what: str, token: int, count: int) -> str:
    return (
        f"{what}, which is number {token} of the tokenizer, and the model has embeddings of {count} tokens, from 0. "
        "Use the tokenizer that belongs to the model, or resize the model's embeddings to this one "
        "(model.resize_token_embeddings(len(tokenizer))) and save both; tokens that are new then have to be learned "
        "(use_lora false)."
    )
