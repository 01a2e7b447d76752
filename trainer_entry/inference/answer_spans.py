"""Answers that stand in a text: the span that the model finds the likeliest."""
# mypy: allow-untyped-calls

import inspect
import time
from collections.abc import Callable
from typing import Any

import torch

from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.runtime.failures import PromptTooLong
from trainer_entry.runtime.stdout import LineWriter
from trainer_entry.tasks.context_windows import Window, best_span, windows
from trainer_entry.wire import Generate, Generated, Token

_OVERLAP = 128
_MOST_TOKENS = 30
"""How long an answer can be, as in evaluation."""


def extract(
    request: Generate, loaded: LoadedModel, model: Any, lines: LineWriter, is_over: Callable[[], bool]
) -> Generated:
    """The answer to the prompt in the request's context. Once `is_over`, what was read until then must do.

    Raises:
        PromptTooLong: there is no context, or the model has no room for it.
    """
    began = time.monotonic()
    if request.context is None:
        raise PromptTooLong("The context is missing, in which the answer is to be found.")
    found = windows(loaded.tokenizer, request.prompt, request.context, loaded.context, _OVERLAP)
    figures = []
    takes_types = "token_type_ids" in inspect.signature(loaded.model.forward).parameters
    with torch.inference_mode():
        for window in found:
            figures.append(_ask(model, window, takes_types=takes_types))
            if is_over():
                break
    starts, ends = [first for first, _ in figures], [last for _, last in figures]
    most = min(_MOST_TOKENS, request.max_new_tokens)
    answer = best_span(found[: len(figures)], starts, ends, request.context, most)
    if answer.text:
        lines.write(Token(id=request.id, text=answer.text))
    return Generated(
        id=request.id,
        text=answer.text,
        tokens=answer.tokens,
        milliseconds=round((time.monotonic() - began) * 1000),
        finish="stop" if len(figures) == len(found) else "deadline",
        score=answer.score,
        start=answer.start,
        end=answer.end,
        prompt_tokens=sum(len(window.input_ids) for window in found[: len(figures)]),
    )


def _ask(model: Any, window: Window, *, takes_types: bool) -> tuple[list[float], list[float]]:
    """How likely each token of a window is the answer's first, and its last."""
    inputs = {"input_ids": window.input_ids, "attention_mask": window.attention_mask}
    if takes_types and window.token_type_ids is not None:
        inputs["token_type_ids"] = window.token_type_ids
    said = model(**{name: torch.tensor([row], device=model.device) for name, row in inputs.items()})
    return said.start_logits[0].tolist(), said.end_logits[0].tolist()
