"""The one way to run a model's chat template, which is a stranger's program: bounded in time, memory and length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer_entry.runtime.bounds import OutOfBounds, bounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

_LONGEST = 1 << 20
_TIMES = 8  # what a template makes of a text is not much longer, tools that it lays out over lines included


def write_by_template(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Any], tools: Sequence[Any] | None = None, **options: Any
) -> str:
    """The turns as the model's chat template writes them; `options` are those of transformers.

    Raises:
        OutOfBounds: it takes more than it may.
        Exception: whatever a template raises.
    """
    with bounded():
        text = str(
            tokenizer.apply_chat_template(
                list(turns), tools=list(tools) if tools else None, **{**options, "tokenize": False}
            )
        )
    if len(text) > _LONGEST and len(text) > _LONGEST + _TIMES * len(str((turns, tools))):
        raise OutOfBounds(f"it makes a text of {len(text)} characters of {len(str((turns, tools)))}")
    return text
