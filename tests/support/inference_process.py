"""The playground's worker as a process, asked through its pipes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from support.trainer_attempts import child_environment
from trainer_entry import wire

if TYPE_CHECKING:
    from pathlib import Path

DECODER = msgspec.json.Decoder(wire.AnyWorkerMessage)


class Worker:
    """A worker process and the pipes to it."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer_entry.infer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=child_environment(),
            )
        self.requests = 0

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

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
        assert self.process.stdout is not None
        pieces: list[str] = []
        while True:
            message = DECODER.decode(self.process.stdout.readline())
            assert message.id == request
            if not isinstance(message, wire.Token):
                return pieces, message
            pieces.append(message.text)

    def generate(self, model: Path, **changes: Any) -> wire.Generated:
        pieces, answer = self.answer(self.ask(model, **changes))
        assert isinstance(answer, wire.Generated), answer
        assert "".join(pieces) == answer.text
        return answer
