"""An answer by itself, in transformers' own way: of models whose answers cannot be written together."""
# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from trainer_entry.inference.answers import Answer
from trainer_entry.providers.huggingface import LoadedModel


def write_alone(answer: Answer, loaded: LoadedModel, listen: Callable[[], bool]) -> None:
    """Write an answer to its end. `listen`: asked after each token, whether it must end now."""
    model: Any = loaded.model
    tokens = torch.tensor([answer.prompt], device=model.device)
    with torch.inference_mode():
        model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=_configure(answer, loaded),
            logits_processor=LogitsProcessorList([_Chosen(answer)]),
            stopping_criteria=StoppingCriteriaList([_Over(answer, listen)]),
        )


def _configure(answer: Answer, loaded: LoadedModel) -> GenerationConfig:
    """The likeliest token, which `_Chosen` makes the chosen one: no defaults of the model's own apply."""
    return GenerationConfig(
        max_new_tokens=answer.room,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=50,  # the default that greedy decoding does not warn about
        repetition_penalty=1.0,
        eos_token_id=answer.end_tokens,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )


class _Chosen(LogitsProcessor):
    """Leaves nothing but the token that the answer takes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._answer.take(scores[0])
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._answer.written[-1:]] = 0.0
        return forced


class _Over(StoppingCriteria):
    """Ends the generation with the answer."""

    def __init__(self, answer: Answer, listen: Callable[[], bool]) -> None:
        self._answer = answer
        self._listen = listen

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        over = self._listen() or self._answer.is_over
        return torch.full((input_ids.shape[0],), over, device=input_ids.device)
