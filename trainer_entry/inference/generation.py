"""Answers of a model, as they come: with an adapter, or of the base model alone."""
# mypy: allow-untyped-calls

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from trainer_entry.data.edges import end_token_ids
from trainer_entry.data.prompts import prompt_ids, summarization_prompt, summarization_source
from trainer_entry.inference.answer_spans import extract
from trainer_entry.providers import huggingface
from trainer_entry.providers.builtin_model import resolve
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.bounds import RECORD_SECONDS, ended_by_system, limit_memory, time_for
from trainer_entry.runtime.failures import ModelUnavailable, PromptTooLong
from trainer_entry.runtime.stdout import LineWriter
from trainer_entry.wire import Generate, Generated, Task, Token

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_GRACE_SECONDS = 30.0  # a token of a large model may take that long
_SHORTEST_SECONDS = 1.0  # of the processor, for the prompt to be written
_TIMES_THE_WEIGHTS = 10
_MEMORY_BESIDE = 4 << 30
_UNKNOWN_WEIGHTS = 32 << 30  # of a model that the hub gives; its files are its own to check
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Models:
    """The model that was asked for last, and the adapter that was put on it last, stay loaded."""

    def __init__(self) -> None:
        self._kept: tuple[str, Task] | None = None
        self._loaded: LoadedModel | None = None
        self._adapter_path: str | None = None
        self._adapted: PeftModel | None = None

    @contextlib.contextmanager
    def use(self, request: Generate) -> Iterator[tuple[LoadedModel, Any]]:
        """What was loaded, and what generates: the model itself, or the adapter on it."""
        loaded = self._load(request.model_path, request.task)
        if request.adapter_path is not None:
            yield loaded, self._adapt(loaded, request.adapter_path)
        elif self._adapted is not None:
            with self._adapted.disable_adapter():  # not by peft's wrapper, which does not pass every input on
                yield loaded, loaded.model
        else:
            yield loaded, loaded.model

    def _load(self, path: str, task: Task) -> LoadedModel:
        if self._loaded is None or self._kept != (path, task):
            self._adapted = self._adapter_path = self._loaded = None  # make room first
            if not torch.cuda.is_available():  # CUDA keeps memory of the host that nobody can foresee
                limit_memory(_memory_for(path))
            torch.manual_seed(0)  # a head that is made new is the same one each time
            loaded = huggingface.load(path, _dtype(), None, task)
            loaded.model.eval()
            if loaded.model.can_generate():
                loaded.model.generation_config = _tokens_of(loaded.model.generation_config)
            self._loaded, self._kept = loaded, (path, task)
        return self._loaded

    def _adapt(self, loaded: LoadedModel, adapter_path: str) -> PeftModel:
        if self._adapted is None or self._adapter_path != adapter_path:
            if not (Path(adapter_path) / _ADAPTER_WEIGHTS).is_file():
                raise ModelUnavailable(f"There is no {_ADAPTER_WEIGHTS} in the adapter's folder.")
            check_folder(adapter_path)
            if self._adapted is not None:
                self._adapted.unload()  # the base model's layers are its own again
                self._adapted = None
            self._adapted = PeftModel.from_pretrained(loaded.model, adapter_path)
            self._adapter_path = adapter_path
            self._adapted.eval()
        return self._adapted


def answer(request: Generate, models: Models, lines: LineWriter, ended: threading.Event) -> Generated:
    """Answer, and send each piece of the text on its way. Nobody listens any more once `ended` is set.

    Raises:
        PromptTooLong: the model's context has no room for the prompt, or for an answer.
    """
    with (
        models.use(request) as (loaded, model),
        ended_by_system(request.deadline_seconds + _GRACE_SECONDS),
        time_for(max(_SHORTEST_SECONDS, min(RECORD_SECONDS, request.deadline_seconds))),
    ):
        deadline = _Deadline(time.monotonic() + request.deadline_seconds, ended)  # loading is not the answer's fault
        match request.task:
            case "text-generation" | "summarization":
                return _generate(request, loaded, model, lines, deadline)
            case "extractive-question-answering":
                return extract(request, loaded, model, lines, deadline.is_over)
            case _:
                assert_never(request.task)


def _generate(
    request: Generate, loaded: LoadedModel, model: Any, lines: LineWriter, deadline: "_Deadline"
) -> Generated:
    began = time.monotonic()
    ids, room = _read(request, loaded)
    ends = end_token_ids(loaded.tokenizer, loaded.model.generation_config.eos_token_id)
    pieces = _Pieces(loaded.tokenizer, request.id, lines)
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


def _read(request: Generate, loaded: LoadedModel) -> tuple[list[int], int]:
    """The tokens that the model reads, and how many it can then write."""
    config, tokenizer = loaded.model.config, loaded.tokenizer
    if config.is_encoder_decoder:  # the decoder has a context of its own, which begins with one token
        ids = list(tokenizer(summarization_source(config, request.prompt), verbose=False)["input_ids"])
        positions = huggingface.decoder_positions(config)
        room = request.max_new_tokens if positions is None else positions - 1
        fits = len(ids) <= loaded.context
    else:
        summarizes = request.task == "summarization"
        ids = prompt_ids(tokenizer, summarization_prompt(tokenizer, request.prompt) if summarizes else request.prompt)
        room = loaded.context - len(ids)
        fits = room >= 1
    if not fits:
        raise PromptTooLong(f"The prompt has {len(ids)} tokens, and the model takes {loaded.context}.")
    return ids, room


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
        return torch.full((input_ids.shape[0],), self.is_over(), device=input_ids.device)

    def is_over(self) -> bool:
        """Whether the answer must end now."""
        self.passed = time.monotonic() >= self._at or self._ended.is_set()
        return self.passed


def _tokens_of(own: GenerationConfig) -> GenerationConfig:
    """Of a model's own defaults, its special tokens: no beams, no least length, and no forced end at the limit."""
    return GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        forced_bos_token_id=own.forced_bos_token_id,
    )


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


def _memory_for(path: str) -> int:
    """What a model may take at most beyond the libraries: weights may stand in 4 bits, and are computed in 32."""
    folder = Path(resolve(path))
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else _UNKNOWN_WEIGHTS
    return _TIMES_THE_WEIGHTS * weights + _MEMORY_BESIDE


def _dtype() -> torch.dtype:
    """As training computes: in 32 bits on the CPU, in 16 on a GPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
