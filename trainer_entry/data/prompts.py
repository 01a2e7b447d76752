"""How a prompt is written for a model: one rendering for training and for the playground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer_entry.data.records import Turn
from trainer_entry.runtime.failures import ChatTemplateFails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_TASK_IN_WORDS = frozenset({"t5", "mt5", "umt5", "longt5"})
"""Model types that take their task as the first words of their input."""
_NAMED_ROLES = 10


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The tokens that an answer to `prompt` follows, exactly as in training."""
    if tokenizer.chat_template is not None:
        text = render(tokenizer, [Turn("user", prompt)], answer_follows=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = list(tokenizer(plain_prompt(prompt))["input_ids"])
    # Some tokenizers close every text with an end token: no answer would follow it.
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def summarization_prompt(document: str) -> str:
    """What a causal model is asked for a summary; it is written as any prompt is, in training and afterwards."""
    return f"Summarize the following text.\n\n{document}"


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

    Raises:
        ChatTemplateFails: it cannot; many refuse roles, or turns in another order than theirs, or know no tools.
    """
    if (tools or any(turn.tool_calls or turn.role == "tool" for turn in turns)) and not knows_tools(tokenizer):
        raise ChatTemplateFails(
            "The model's chat template knows no tools, and the conversation has some. Use a model whose template does."
        )
    try:
        return str(
            tokenizer.apply_chat_template(
                [message_of(turn) for turn in turns],
                tools=list[Any](tools) if tools else None,
                tokenize=False,
                add_generation_prompt=answer_follows,
            )
        )
    except MemoryError:
        raise
    except Exception as error:
        roles = ", ".join(turn.role for turn in turns[:_NAMED_ROLES]) or "none"
        raise ChatTemplateFails(
            f"The model's chat template cannot write the turns {roles}: {type(error).__name__}: {error}"
        ) from error


def knows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model's chat template writes tools."""
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template or ""]
    return any("tool" in text for text in texts)


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


def plain_prompt(prompt: str) -> str:
    """A prompt for a model without a chat template: the answer begins on a line of its own."""
    return prompt if prompt[-1:].isspace() else prompt + "\n"


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts of the tokens that can end a turn, the longest first."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    special.update(tokenizer.all_special_tokens)
    return sorted(special, key=len, reverse=True)


def end_token_ids(tokenizer: PreTrainedTokenizerBase, configured: int | list[int] | None) -> list[int]:
    """Where generation stops: the model's own end tokens, and the one that its chat template ends a turn with."""
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    if tokenizer.chat_template is not None:
        answered = render(tokenizer, [Turn("user", "?"), Turn("assistant", "!")], answer_follows=False).rstrip()
        ends = [token for token in end_tokens(tokenizer) if answered.endswith(token)]
        if ends:
            ids.add(tokenizer.get_vocab()[ends[0]])
    return sorted(number for number in ids if isinstance(number, int))
