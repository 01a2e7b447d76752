"""Chats together beside chats one after the other: `python benchmarks/playground.py [--model FOLDER] [--chats 8]`.

The playground's worker as the server starts it, on this machine's own device; the built-in model, if none is named.
Both ways are measured in turn, a few times, after a first time that is not counted; what counts is the median of the
ratios, for another's load on the machine falls on both. Every answer has the same length: no end token is waited for.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from figures import Figure, Program, Rounds

from modelforge.machine.child_environment import child_environment
from trainer_entry import wire

COMPANY = Figure(
    name="Eight chats together / one after the other",
    unit="tokens/s",
    yardstick="one after the other",
    at_least=2.5,
    note="Tokens a second of the playground's worker with the built-in model: eight prompts asked at once, and the "
    "same number one by one; answers of 64 tokens each.",
)
_DECODER = msgspec.json.Decoder(wire.AnyWorkerMessage)


class Worker:
    """A worker and the pipes to it."""

    def __init__(self, model: str, tokens: int) -> None:
        self._model = model
        self._tokens = tokens
        self._asked = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer_entry.infer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
        )

    def send(self, temperature: float) -> None:
        """Ask for one more answer."""
        self._asked += 1
        request = wire.Generate(
            id=self._asked,
            model_path=self._model,
            adapter_path=None,
            prompt=f"Write a long story about the number {self._asked}.",
            max_new_tokens=self._tokens,
            temperature=temperature,
            top_p=0.9,
            seed=self._asked,
            deadline_seconds=600.0,
            logit_bias={},
        )
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()

    def receive(self) -> int:
        """Wait for the end of an answer; its tokens."""
        while self._process.stdout is not None and (line := self._process.stdout.readline()):
            message = _DECODER.decode(line)
            if isinstance(message, wire.GenerationFailed):
                raise SystemExit(f"{message.kind}: {message.message}")
            if isinstance(message, wire.Generated):
                return message.tokens
        raise SystemExit("The worker ended.")

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()


def one_by_one(worker: Worker, chats: int, temperature: float) -> float:
    """Tokens a second of chats of which each waits for the one before."""
    began, tokens = time.monotonic(), 0
    for _ in range(chats):
        worker.send(temperature)
        tokens += worker.receive()
    return tokens / (time.monotonic() - began)


def together(worker: Worker, chats: int, temperature: float) -> float:
    """Tokens a second of chats that are asked for at once."""
    began = time.monotonic()
    for _ in range(chats):
        worker.send(temperature)
    return sum(worker.receive() for _ in range(chats)) / (time.monotonic() - began)


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--model", default=wire.BUILT_IN_MODEL, help="a causal model's folder")
    parser.add_argument("--chats", type=int, help="how many at once (8)")
    parser.add_argument("--tokens", type=int, help="of each answer, at most (64)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: the likeliest token each time")


def measure(rounds: Rounds) -> None:
    """Both ways in turn, by one worker."""
    asked = rounds.options
    chats = asked.chats or (3 if rounds.quick else 8)
    worker = Worker(asked.model, asked.tokens or (4 if rounds.quick else 64))
    worker.send(asked.temperature)
    worker.receive()  # the model is loaded

    def all_together(_folder: Path) -> float:
        return together(worker, chats, asked.temperature)

    def one_after_the_other(_folder: Path) -> float:
        return one_by_one(worker, chats, asked.temperature)

    rounds.compare(COMPANY, all_together, one_after_the_other)
    worker.end()


PROGRAM = Program(__doc__, measure, COMPANY, options=options)

if __name__ == "__main__":
    PROGRAM.main()
