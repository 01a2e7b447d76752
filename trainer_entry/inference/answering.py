"""All that one worker is asked: which answers are written together, and which wait."""

import time
import traceback
from collections import deque
from typing import assert_never

from trainer_entry.inference.alone import write_alone
from trainer_entry.inference.answer_spans import extract
from trainer_entry.inference.answers import Answer, failed
from trainer_entry.inference.batch import can_join
from trainer_entry.inference.models import Models
from trainer_entry.inference.requests import Requests
from trainer_entry.inference.token_bytes import TokenBytes
from trainer_entry.inference.writing import Writing
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.runtime.bounds import RECORD_SECONDS, ended_by_system, time_for
from trainer_entry.runtime.failures import Withdrawn
from trainer_entry.runtime.stdout import LineWriter
from trainer_entry.wire import MOST_ANSWERS_AT_ONCE, Generate, GenerationFailed, Withdraw

_GRACE_SECONDS = 30.0  # a token of a large model may take that long
_SHORTEST_SECONDS = 1.0  # of the processor, for the prompt to be written
_WITHDRAWN = Withdrawn("Nobody waits for it any more.")


class Answering:
    """The answers in the order in which they were asked for, a model at a time.

    A request for the loaded model joins the others, as long as there is room for it. One for another model, and
    whatever came after it, waits until they have ended: who asks at what time is the server's to arrange. Where a
    model's answers cannot be written together, one follows the other.
    """

    def __init__(self, requests: Requests, lines: LineWriter) -> None:
        self._requests = requests
        self._lines = lines
        self._models = Models()
        self._waiting: deque[Generate] = deque()
        self._answers: dict[int, Answer] = {}
        self._finding: set[int] = set()
        self._writing: Writing | None = None
        self._spelling: TokenBytes | None = None

    def run(self) -> None:
        """Answer until there is nobody to answer to."""
        while not self._is_left(wait=not (self._waiting or self._answers)):
            self._begin_waiting()
            if self._answers and self._writing is not None:
                with ended_by_system(self._least_time() + _GRACE_SECONDS):
                    ended = self._writing.advance()
                for answer in ended:
                    del self._answers[answer.request.id]
                    answer.end()

    def _is_left(self, *, wait: bool = False) -> bool:
        """Take in what has been asked meanwhile; true once nobody listens any more."""
        for request in self._requests.take(wait=wait):
            match request:
                case Generate():
                    self._waiting.append(request)
                case Withdraw():
                    self._withdraw(request.id)
                case GenerationFailed():
                    self._lines.write(request)
                case _:
                    assert_never(request)
        return self._requests.ended

    def _withdraw(self, number: int) -> None:
        if (answer := self._answers.get(number)) is not None:
            answer.withdrawn = True
        elif number in self._finding:
            self._finding.clear()
        elif number in {request.id for request in self._waiting}:
            self._waiting = deque(request for request in self._waiting if request.id != number)
            self._lines.write(failed(number, _WITHDRAWN))

    def _begin_waiting(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            joins = self._writing is not None and self._models.has(first.model_path, first.task)
            if self._answers and not (joins and len(self._answers) < MOST_ANSWERS_AT_ONCE):
                return
            self._waiting.popleft()
            try:
                self._begin(first)
            except Exception as error:  # noqa: BLE001 - a failure is an answer
                traceback.print_exc()
                self._answers.pop(first.id, None)
                self._lines.write(failed(first.id, error))

    def _begin(self, request: Generate) -> None:
        """Answer, or have it written together with the others. Loading is not the answer's fault, and has no limit."""
        loaded, spelling = self._load(request)
        in_use = {path for answer in self._answers.values() if (path := answer.request.adapter_path) is not None}
        self._models.put_on(loaded, request.adapter_path, in_use)
        seconds = request.deadline_seconds
        with (
            ended_by_system(min(seconds, self._least_time()) + _GRACE_SECONDS),
            time_for(max(_SHORTEST_SECONDS, min(RECORD_SECONDS, seconds))),
        ):
            match request.task:
                case "text-generation" | "summarization":
                    answer = Answer(request, loaded, spelling, self._lines)
                    self._answers[request.id] = answer
                    if self._writing is not None:
                        self._writing.add(answer)
                    else:
                        self._models.switch(request.adapter_path)
                        write_alone(answer, loaded, self._is_left)
                        del self._answers[request.id]
                        answer.end()
                case "extractive-question-answering":
                    self._models.switch(request.adapter_path)
                    self._find(request, loaded)
                case _:
                    assert_never(request.task)

    def _load(self, request: Generate) -> tuple[LoadedModel, TokenBytes]:
        if self._spelling is not None and self._models.has(request.model_path, request.task):
            return self._models.load(request.model_path, request.task), self._spelling
        self._writing = self._spelling = None  # make room first
        loaded = self._models.load(request.model_path, request.task)
        if request.task != "extractive-question-answering" and can_join(loaded, self._models):
            self._writing = Writing(loaded, self._models)
        self._spelling = TokenBytes(loaded.tokenizer)
        return loaded, self._spelling

    def _find(self, request: Generate, loaded: LoadedModel) -> None:
        """Answer from a context, a window of it after another."""
        self._finding, ends_at = {request.id}, time.monotonic() + request.deadline_seconds

        def is_over() -> bool:
            return self._is_left() or not self._finding or time.monotonic() >= ends_at

        found = extract(request, loaded, loaded.model, self._lines, is_over)
        self._lines.write(found if self._finding else failed(request.id, _WITHDRAWN))

    def _least_time(self) -> float:
        """The seconds until the first deadline of an answer that is being written."""
        ends = (answer.ends_at for answer in self._answers.values())
        return max(0.0, min(ends, default=float("inf")) - time.monotonic())
