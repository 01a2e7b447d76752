"""Chats together beside chats one after the other: `python benchmarks/playground.py [--model FOLDER] [--chats 8]`.

The playground's worker as the server starts it, on this machine's own device; the built-in model, if none is named.
Both ways are measured in turn, a few times, after a first time that is not counted; what counts is the median of the
ratios, for another's load on the machine falls on both. Every answer has the same length: no end token is waited for.
"""

import argparse
import statistics
import subprocess
import sys
import time

import msgspec

from modelforge.machine.child_environment import child_environment
from trainer_entry import wire

ROUNDS = 5
LEAST_RATIO = 2.5
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


def main() -> int:
    """Measure, print a line for each round, and fail where company gains too little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=wire.BUILT_IN_MODEL, help="a causal model's folder")
    parser.add_argument("--chats", type=int, default=8, help="how many at once")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, at most")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: the likeliest token each time")
    asked = parser.parse_args()
    worker = Worker(asked.model, asked.tokens)
    worker.send(asked.temperature)
    worker.receive()  # the model is loaded
    ratios = []
    for number in range(1, ROUNDS + 1):
        alone = one_by_one(worker, asked.chats, asked.temperature)
        company = together(worker, asked.chats, asked.temperature)
        ratios.append(company / alone)
        print(f"round {number}: {alone:7.1f} tokens/s one by one, {company:7.1f} together, {ratios[-1]:.2f} times")
    worker.end()
    median = statistics.median(ratios)
    print(f"{asked.chats} chats together: {median:.2f} times the tokens a second (median of {ROUNDS})")
    return 0 if median >= LEAST_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
