"""Answers of a model, as they come: with an adapter, or of the base model alone."""
# mypy: allow-untyped-calls

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from trainer_entry.failures import ModelUnavailable, PromptTooLong
from trainer_entry.prompts import end_token_ids, prompt_ids
from trainer_entry.providers import huggingface
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.stdout import LineWriter
from trainer_entry.wire import Generate, Generated, Token

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Models:
    """The model that was asked for last, and the adapter that was put on it last, stay loaded."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._loaded: LoadedModel | None = None
        self._adapter_path: str | None = None
        self._adapted: PeftModel | None = None

    @contextlib.contextmanager
    def use(self, request: Generate) -> Iterator[tuple[LoadedModel, Any]]:
        """What was loaded, and what generates: the model itself, or the adapter on it."""
        loaded = self._load(request.model_path)
        if request.adapter_path is not None:
            yield loaded, self._adapt(loaded, request.adapter_path)
        elif self._adapted is not None:
            with self._adapted.disable_adapter():
                yield loaded, self._adapted
        else:
            yield loaded, loaded.model

    def _load(self, path: str) -> LoadedModel:
        if self._loaded is None or self._path != path:
            self._adapted = self._adapter_path = self._loaded = None  # make room first
            self._loaded = huggingface.load(path, _dtype(), quantization=None)
            self._path = path
            if torch.cuda.is_available():
                torch.nn.Module.to(self._loaded.model, "cuda")
            self._loaded.model.eval()
        return self._loaded

    def _adapt(self, loaded: LoadedModel, adapter_path: str) -> PeftModel:
        if self._adapted is None or self._adapter_path != adapter_path:
            if not (Path(adapter_path) / _ADAPTER_WEIGHTS).is_file():
                raise ModelUnavailable(f"There is no {_ADAPTER_WEIGHTS} in the adapter's folder.")
            if self._adapted is not None:
                self._adapted.unload()  # the base model's layers are its own again
                self._adapted = None
            self._adapted = PeftModel.from_pretrained(loaded.model, adapter_path)
            self._adapter_path = adapter_path
            self._adapted.eval()
        return self._adapted


def answer(request: Generate, models: Models, lines: LineWriter, ended: threading.Event) -> Generated:
    """Generate, and send each piece of the text on its way. Nobody listens any more once `ended` is set.

    Raises:
        PromptTooLong: the model's context has no room for an answer.
    """
    with models.use(request) as (loaded, model):
        began = time.monotonic()  # loading a model is not the answer's fault
        ids = prompt_ids(loaded.tokenizer, request.prompt)
        room = loaded.context - len(ids)
        if room < 1:
            raise PromptTooLong(f"The prompt has {len(ids)} tokens, and the model takes {loaded.context}.")
        ends = end_token_ids(loaded.tokenizer, loaded.model.generation_config.eos_token_id)
        pieces = _Pieces(loaded.tokenizer, request.id, lines)
        deadline = _Deadline(began + request.deadline_seconds, ended)
        if request.seed is None:
            torch.seed()
        else:
            torch.manual_seed(request.seed)
        tokens = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=_configure(request, min(request.max_new_tokens, room), ends, loaded.tokenizer),
                streamer=pieces,
                stopping_criteria=StoppingCriteriaList([deadline]),
            )
    finish: Literal["stop", "length", "deadline"] = "length"
    if pieces.ids and pieces.ids[-1] in ends:
        finish = "stop"
    elif deadline.passed:
        finish = "deadline"
    return Generated(
        id=request.id,
        text=pieces.text,
        tokens=len(pieces.ids),
        milliseconds=round((time.monotonic() - began) * 1000),
        finish=finish,
    )


class _Pieces(BaseStreamer):
    """Sends text as soon as it is certain: a character can take several tokens.

    Only the end of the answer is decoded anew for each token, with as much before it as decides about spaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, request_id: int, lines: LineWriter) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._tokenizer = tokenizer
        self._request_id = request_id
        self._lines = lines
        self._prompt_seen = False
        self._context = 0
        self._sent = 0

    def put(self, value: torch.Tensor) -> None:
        """The prompt comes first, and then every token."""
        if self._prompt_seen:
            self.ids.extend(value.reshape(-1).tolist())
            self._send(last=False)
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing follows that could complete a character."""
        self._send(last=True)

    def _send(self, *, last: bool) -> None:
        known = self._decode(self.ids[self._context : self._sent])
        text = self._decode(self.ids[self._context :])
        if len(text) <= len(known) or (text.endswith(_UNFINISHED) and not last):
            return
        self._context, self._sent = self._sent, len(self.ids)
        piece = text[len(known) :]
        self.text += piece
        self._lines.write(Token(id=self._request_id, text=piece))

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class _Deadline(StoppingCriteria):
    """Ends an answer that takes too long, or that nobody waits for."""

    def __init__(self, at: float, ended: threading.Event) -> None:
        self.passed = False
        self._at = at
        self._ended = ended

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Asked after every token."""
        self.passed = time.monotonic() >= self._at or self._ended.is_set()
        return torch.full((input_ids.shape[0],), self.passed, device=input_ids.device)


def _configure(
    request: Generate, max_new_tokens: int, ends: list[int], tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """What was asked for and nothing else: a model's own sampling defaults do not apply."""
    samples = request.temperature > 0
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=samples,
        temperature=request.temperature if samples else 1.0,
        top_p=request.top_p if samples else 1.0,
        top_k=0 if samples else 50,  # 50 is the default that greedy decoding does not warn about
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def _dtype() -> torch.dtype:
    """As training computes: in 32 bits on the CPU, in 16 on a GPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
