"""How a prompt is written for a model: one rendering for training and for the playground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from trainer_entry.data.edges import bare, content_ids, edges_of, opening_ids, trim
from trainer_entry.data.records import Turn
from trainer_entry.data.templates import write_by_template
from trainer_entry.runtime.bounds import OutOfBounds
from trainer_entry.runtime.failures import ChatTemplateFails, NoChatTemplate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_TASK_IN_WORDS = frozenset({"t5", "mt5", "umt5", "longt5"})
"""Model types that take their task as the first words of their input."""
_NAMED_ROLES = 10


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The tokens that an answer to `prompt` follows, exactly as in training."""
    return asked_ids(tokenizer, [Turn("user", prompt)])


def asked_ids(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], tools: list[dict[str, Any]] | None = None
) -> list[int]:
    """The tokens that an answer to a conversation follows; without a chat template it is one turn.

    Raises:
        ChatTemplateFails: the model's template cannot write it.
        NoChatTemplate: there is none, and several turns.
    """
    if tokenizer.chat_template is not None:
        return content_ids(tokenizer, render(tokenizer, trimmed_turns(tokenizer, turns), tools, answer_follows=True))
    opening, text = opened(tokenizer, _only(turns))
    return opening + content_ids(tokenizer, text)


def answered_ids(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], answer: Sequence[Turn]) -> list[int]:
    """The tokens of a conversation with an answer, through its end.

    Raises:
        ChatTemplateFails: the model's template cannot write it.
        NoChatTemplate: there is none, and several turns.
    """
    if tokenizer.chat_template is not None:
        written = render(tokenizer, trimmed_turns(tokenizer, [*turns, *answer]), answer_follows=False)
        return rendered_ids(tokenizer, written)
    opening, text = opened(tokenizer, _only(turns))
    ids = opening + content_ids(tokenizer, text + bare(tokenizer, _only(answer)))
    return ids if tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def rendered_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a conversation that a chat template wrote, through its end."""
    ids = content_ids(tokenizer, text)
    closed = edges_of(tokenizer).closed_length(text) is not None
    return ids if closed or tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def opened(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[list[int], str]:
    """A prompt without a chat template: the tokens that stand before it, and the text that an answer follows."""
    trimmed = trim(prompt, edges_of(tokenizer))
    return opening_ids(tokenizer, begun=trimmed.begun), plain_prompt(trimmed.text)


def _only(turns: Sequence[Turn]) -> str:
    if len(turns) != 1:
        raise NoChatTemplate(
            "The records are conversations, and the model has no chat template to write them with. "
            "Use an instruction-tuned model, or records whose prompts and answers are plain texts."
        )
    return turns[0].content


def summarization_prompt(tokenizer: PreTrainedTokenizerBase, document: str) -> str:
    """What a causal model is asked for a summary; it is written as any prompt is, in training and afterwards."""
    return f"Summarize the following text.\n\n{bare(tokenizer, document)}"


def summarization_source(config: PreTrainedConfig, document: str) -> str:
    """What the encoder of an encoder-decoder model reads for a summary, in training and afterwards."""
    has_prefix = config.model_type in _TASK_IN_WORDS or "summarization" in (
        getattr(config, "task_specific_params", None) or {}
    )
    return f"summarize: {document}" if has_prefix else document


def render(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    tools: list[dict[str, Any]] | None = None,
    *,
    answer_follows: bool,
) -> str:
    """The conversation as the model's chat template writes it, with or without the head of an answer.

    `turns`: trimmed, which is done once however many beginnings of a conversation are written.

    Raises:
        ChatTemplateFails: it cannot; many refuse roles, or turns in another order than theirs, or know no tools.
    """
    if (tools or any(turn.tool_calls or turn.role == "tool" for turn in turns)) and not knows_tools(tokenizer):
        raise ChatTemplateFails(
            "The model's chat template knows no tools, and the conversation has some. Use a model whose template does."
        )
    try:
        return write_by_template(
            tokenizer, [message_of(turn) for turn in turns], tools, add_generation_prompt=answer_follows
        )
    except Exception as error:
        roles = ", ".join(turn.role for turn in turns[:_NAMED_ROLES]) or "none"
        why = str(error) if isinstance(error, OutOfBounds) else f"{type(error).__name__}: {error}"
        raise ChatTemplateFails(f"The model's chat template cannot write the turns {roles}: {why}") from error


def knows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model's chat template writes tools."""
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template or ""]
    return any("tool" in text for text in texts)


def trimmed_turns(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[Turn]:
    """The turns without beginning and end tokens that were written by hand: the template writes its own."""
    contents = [bare(tokenizer, turn.content) for turn in turns]
    return [
        turn if content == turn.content else msgspec.structs.replace(turn, content=content)
        for turn, content in zip(turns, contents, strict=True)
    ]


def message_of(turn: Turn) -> dict[str, Any]:
    """A turn as chat templates read it; what it has not is left out."""
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({} if call.id is None else {"id": call.id})
            for call in turn.tool_calls
        ]
    for name in ("tool_call_id", "name", "reasoning_content"):
        if (value := getattr(turn, name)) is not None:
            message[name] = value
    return message


def plain_question(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """The one turn as a text for a model without a chat template; a beginning that was written by hand stays.

    Raises:
        NoChatTemplate: there are several.
    """
    edges = edges_of(tokenizer)
    trimmed = trim(_only(turns), edges)
    return (edges.begin or "" if trimmed.begun else "") + plain_prompt(trimmed.text)


def plain_prompt(prompt: str) -> str:
    """A prompt for a model without a chat template: the answer begins on a line of its own."""
    return prompt if prompt[-1:].isspace() else prompt + "\n"
