"""What the model reads of a request: its prompt, its chat or its tokens, and how many it can then write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from trainer_entry.data.prompts import asked_ids, prompt_ids, summarization_prompt, summarization_source
from trainer_entry.data.records import ToolCall, Turn
from trainer_entry.providers import huggingface
from trainer_entry.runtime.failures import (
    ChatTemplateFails,
    NoChatTemplate,
    PromptEmpty,
    PromptTooLong,
    TokenWithoutEmbedding,
    UnknownToken,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.wire import ChatTurn, Generate

_NAMED = 5


def read(request: Generate, loaded: LoadedModel) -> tuple[list[int], int]:
    """The tokens that the model reads, and how many it can then write.

    Raises:
        PromptTooLong: the model's context has no room for them, or for an answer.
        PromptEmpty: there are none, and the tokenizer begins a text with none.
        UnknownToken: the request names tokens that the model does not have.
        TokenWithoutEmbedding: its tokenizer writes the prompt with some.
        NoChatTemplate: the model has none, and the request is a chat.
        ChatTemplateFails: the model's template cannot write it.
    """
    known = huggingface.embedded_tokens(loaded.config) or len(loaded.tokenizer)
    _refuse_unknown("logit_bias", request.logit_bias, known)
    _refuse_unknown("the prompt", request.prompt_ids, known)
    ids = list(request.prompt_ids) or _written(request, loaded)
    if not ids:
        raise PromptEmpty("The prompt has no tokens, and the model's tokenizer has none to begin a text with.")
    if not loaded.is_encoder_decoder and max(ids) >= known:
        raise TokenWithoutEmbedding(f"The tokenizer writes token {max(ids)}, and the model has {known}.")
    if loaded.is_encoder_decoder:  # the decoder has a context of its own, which begins with one token
        positions = huggingface.decoder_positions(loaded.config)
        room = request.max_new_tokens if positions is None else positions - 1
        fits = len(ids) <= loaded.context
    else:
        room = loaded.context - len(ids)
        fits = room >= 1
    if not fits:
        raise PromptTooLong(f"The prompt has {len(ids)} tokens, and the model takes {loaded.context}.")
    return ids, min(room, request.max_new_tokens)


def _written(request: Generate, loaded: LoadedModel) -> list[int]:
    tokenizer = loaded.tokenizer
    if request.turns:
        return _chat_ids(request, loaded)
    if request.verbatim:
        ids = list(tokenizer(request.prompt, truncation=False, verbose=False)["input_ids"])
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return ids or ([] if begin is None else [begin])
    if loaded.is_encoder_decoder:
        return list(tokenizer(summarization_source(loaded.config, request.prompt), verbose=False)["input_ids"])
    summarizes = request.task == "summarization"
    return prompt_ids(tokenizer, summarization_prompt(tokenizer, request.prompt) if summarizes else request.prompt)


def _chat_ids(request: Generate, loaded: LoadedModel) -> list[int]:
    tools = _tools(request.tools)
    if loaded.tokenizer.chat_template is None and (tools or [turn.role for turn in request.turns] != ["user"]):
        raise NoChatTemplate(
            "The model has no chat template, which a chat of several turns or with tools is written by. "
            "Use an instruction-tuned model, or send one turn of a user."
        )
    return asked_ids(loaded.tokenizer, [_turn(turn) for turn in request.turns], tools)


def _turn(turn: ChatTurn) -> Turn:
    calls = tuple(ToolCall(call.name, _arguments(call.name, call.arguments), call.id) for call in turn.tool_calls)
    return Turn(turn.role, turn.content, tool_calls=calls, tool_call_id=turn.tool_call_id, name=turn.name)


def _arguments(name: str, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ChatTemplateFails(f"The arguments of the call of {name} are no JSON object: {error}") from error


def _tools(text: str | None) -> list[dict[str, Any]] | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise ChatTemplateFails(f"The tools are no JSON list of objects: {error}") from error


def _refuse_unknown(where: str, ids: Iterable[int], known: int) -> None:
    unknown = sorted({number for number in ids if not 0 <= number < known})
    if unknown:
        named = ", ".join(map(str, unknown[:_NAMED])) + (", …" if len(unknown) > _NAMED else "")
        raise UnknownToken(f"The model has the tokens 0 to {known - 1}; {where} names {named}.")
