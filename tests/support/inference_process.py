"""The playground's worker as a process, asked through its pipes."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from support.trainer_attempts import child_environment, warm_trainer
from support.warm_process import start_process
from trainer_entry import wire

if TYPE_CHECKING:
    from pathlib import Path

DECODER = msgspec.json.Decoder(wire.AnyWorkerMessage)


class Worker:
    """A worker process and the pipes to it; forked (support.warm_process), unless it is `cold`."""

    def __init__(self, log: Path, *, cold: bool = False) -> None:
        self.requests = 0
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        with log.open("wb") as stderr:
            self.process = start_process(
                [sys.executable, "-m", "trainer_entry.infer"],
                child_environment(),
                warm=None if cold else partial(warm_trainer, "huggingface"),
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=stderr.fileno(),
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = open(ours_in, "wb"), open(ours_out, "rb")  # noqa: PTH123, SIM115 - closed by `end`

    def end(self) -> int:
        """Close its stdin, and wait for its end; the exit code."""
        self.stdin.close()
        try:
            return self.process.wait(timeout=30)
        finally:
            self.stdout.close()

    def send(self, line: bytes) -> None:
        self.stdin.write(line + b"\n")
        self.stdin.flush()

    def ask(self, model: Path, **changes: Any) -> int:
        self.requests += 1
        fields: dict[str, Any] = {
            "id": self.requests,
            "model_path": str(model),
            "adapter_path": None,
            "prompt": "Why does bread rise?",
            "max_new_tokens": 12,
            "temperature": 0.0,
            "top_p": 1.0,
        }
        self.send(msgspec.json.encode(wire.Generate(**(fields | changes))))
        return self.requests

    def answer(self, request: int) -> tuple[list[str], wire.Generated | wire.GenerationFailed]:
        pieces: list[str] = []
        while True:
            message = DECODER.decode(self.stdout.readline())
            assert message.id == request
            if not isinstance(message, wire.Token):
                return pieces, message
            pieces.append(message.text)

    def answers(self, *requests: int) -> dict[int, tuple[list[wire.Token], wire.Generated | wire.GenerationFailed]]:
        """Those of several requests, which come as they come."""
        pieces: dict[int, list[wire.Token]] = {request: [] for request in requests}
        last: dict[int, wire.Generated | wire.GenerationFailed] = {}
        while len(last) < len(requests):
            message = DECODER.decode(self.stdout.readline())
            assert message.id in pieces.keys() - last.keys(), message
            if isinstance(message, wire.Token):
                pieces[message.id].append(message)
            else:
                last[message.id] = message
        return {request: (pieces[request], last[request]) for request in requests}

    def withdraw(self, request: int) -> None:
        self.send(msgspec.json.encode(wire.Withdraw(id=request)))

    def generate(self, model: Path, **changes: Any) -> wire.Generated:
        pieces, answer = self.answer(self.ask(model, **changes))
        assert isinstance(answer, wire.Generated), answer
        assert "".join(pieces) == answer.text
        return answer
