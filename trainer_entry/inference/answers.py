"""One answer: what was asked, what was written of it, and why it ends."""

import time
from typing import Literal

import torch

from trainer_entry.data.edges import end_token_ids
from trainer_entry.inference.choices import Choices
from trainer_entry.inference.pieces import Pieces
from trainer_entry.inference.prompts import read
from trainer_entry.inference.token_bytes import TokenBytes
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.runtime.failures import Withdrawn, kind_of, message_of
from trainer_entry.runtime.stdout import LineWriter
from trainer_entry.wire import Generate, Generated, GenerationFailed


class Answer:
    """An answer that is being written. Its time begins when it is made: loading the model is not its fault.

    Raises:
        Exception: the prompt cannot be read; see `trainer_entry.inference.prompts.read`.
    """

    def __init__(self, request: Generate, loaded: LoadedModel, spelling: TokenBytes, lines: LineWriter) -> None:
        self.request = request
        self.ends_at = time.monotonic() + request.deadline_seconds
        self.finish: Literal["stop", "length", "deadline"] | None = None
        self.withdrawn = False
        self._failure: Exception | None = None
        self._began = time.monotonic()
        self._lines = lines
        self.prompt, self.room = read(request, loaded)
        self.end_tokens = end_token_ids(loaded.tokenizer, loaded.model.generation_config.eos_token_id)
        self._choices = Choices(request, loaded.model.device)
        self._pieces = Pieces(loaded.tokenizer, spelling, request.id, request.stop)

    @property
    def written(self) -> list[int]:
        """The tokens of the answer."""
        return self._pieces.ids

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be written."""
        return self.withdrawn or self.finish is not None or self._failure is not None

    def take(self, logits: torch.Tensor) -> None:
        """Choose the next token by the model's logits for it, one for each token of the vocabulary, and write it."""
        try:
            self._take(logits.float())
        except Exception as error:  # noqa: BLE001 - of this answer, and of none that is written beside it
            self.break_off(error)

    def break_off(self, error: Exception) -> None:
        """Nothing more can be written of it, and why."""
        self._failure = error

    def _take(self, logits: torch.Tensor) -> None:
        token = self._choices.choose(logits)
        ends = token in self.end_tokens
        self._pieces.add(token, self._choices.likely(logits, token), self._lines, ends=ends)
        if ends or self._pieces.stopped:
            self.finish = "stop"
        elif len(self.written) >= self.room:
            self.finish = "length"
        else:
            self.look_at_clock()

    def look_at_clock(self) -> None:
        """End the answer if its time is over."""
        if time.monotonic() >= self.ends_at:
            self.finish = self.finish or "deadline"

    def end(self) -> None:
        """Send what is left, and the last word."""
        if (failure := Withdrawn("Nobody waits for it any more.") if self.withdrawn else self._failure) is not None:
            self._lines.write(failed(self.request.id, failure))
            return
        self._pieces.end(self._lines)
        self._lines.write(
            Generated(
                id=self.request.id,
                text=self._pieces.text,
                tokens=len(self.written),
                milliseconds=round((time.monotonic() - self._began) * 1000),
                finish="stop" if self._pieces.stopped else self.finish or "deadline",
                prompt_tokens=len(self.prompt),
            )
        )


def failed(number: int, error: BaseException) -> GenerationFailed:
    """The last word on a request that has no answer."""
    return GenerationFailed(id=number, kind=kind_of(error), message=message_of(error))
