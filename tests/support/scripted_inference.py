"""The playground's worker for tests that are not about a model: it answers as the prompt tells it to.

A prompt that is a `Script` in JSON is followed; of any other, the answer is the JSON of what the worker was asked.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from modelforge.errors import PlaygroundFailed, TooManyRequests, TooMuchWork
from trainer_entry import wire

WITHDRAWN = "withdrawn"
"""In the data directory: a line for each answer that nobody waited for to its end."""


class Script(Struct, forbid_unknown_fields=True):
    """What is answered, piece by piece, and how it ends: `fail` names a worker's failure, `busy`,
    `memory`, or `unforeseen`, which is no error of ours.

    `late`: the seed of an answer that comes after the others. `score`, `start`, `end`: as in `wire.Generated`.
    """

    say: list[str]
    finish: Literal["stop", "length", "deadline"] = "stop"
    fail: str | None = None
    wait: bool = False
    late: int | None = None
    score: float | None = None
    start: int | None = None
    end: int | None = None


class ScriptedInference:
    """Answers as it is told."""

    def __init__(self, _idle_seconds: float, stderr: Path, _isolation: object = None, **_: object) -> None:
        self._withdrawn = stderr.parent / WITHDRAWN
        self._ids = itertools.count(1)

    def uses(self, _path: str) -> bool:
        return False

    async def give_way(self) -> None:
        return

    async def shut(self) -> None:
        return

    def prepare(self) -> None:
        return

    async def generate(
        self, ask: Callable[[int], wire.Generate], _client: str
    ) -> AsyncGenerator[wire.Token | wire.Generated, None]:
        prompt = ask(next(self._ids))
        script = _script(prompt)
        done = False
        try:
            for _ in range(200 if script.late is not None and script.late == prompt.seed else 0):
                await asyncio.sleep(0)
            for piece in script.say:
                await asyncio.sleep(0)
                yield wire.Token(id=prompt.id, text=piece, logprobs=_logprobs(piece, prompt))
            if script.wait:
                await asyncio.Event().wait()
            done = True
            _fail(script.fail)
            yield wire.Generated(
                id=prompt.id,
                text="".join(script.say),
                tokens=len(script.say),
                milliseconds=1,
                finish=script.finish,
                prompt_tokens=7,
                score=script.score,
                start=script.start,
                end=script.end,
                logprobs=tuple(one for piece in script.say for one in _logprobs(piece, prompt)),
            )
        finally:
            if not done:
                with self._withdrawn.open("a") as file:
                    file.write(f"{prompt.id}\n")


def _script(prompt: wire.Generate) -> Script:
    said = prompt.turns[-1].content if prompt.turns else prompt.prompt
    try:
        return msgspec.json.decode(said, type=Script)
    except msgspec.DecodeError:
        return Script([msgspec.json.encode(prompt).decode()])


def _logprobs(piece: str, prompt: wire.Generate) -> tuple[wire.TokenLogprob, ...]:
    if prompt.top_logprobs is None:
        return ()
    others = [piece, *(f"other {place}" for place in range(1, prompt.top_logprobs))][: prompt.top_logprobs]
    top = tuple(wire.LikelyToken(text=one, bytes=tuple(one.encode()), logprob=-0.5) for one in others)
    return (wire.TokenLogprob(text=piece, bytes=tuple(piece.encode()), logprob=-0.5, top=top),)


def _fail(how: str | None) -> None:
    match how:
        case None:
            return
        case "busy":
            raise TooManyRequests("The playground is busy", "16 wait already; try again later.", retry_after=5)
        case "memory":
            raise TooMuchWork("The answer took too much memory", "Send a shorter prompt.")
        case "unforeseen":
            raise ZeroDivisionError(how)
        case _:
            raise PlaygroundFailed("The model could not answer", f"{how}: as it was told", kind=how)
