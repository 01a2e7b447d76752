"""The client of the inference worker: a process of its own, started on demand and ended when idle."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec
import structlog

from modelforge.child_environment import child_environment
from modelforge.errors import Conflict, PlaygroundFailed
from trainer_entry import wire

_log = structlog.get_logger()
_LOADING_SECONDS = 600.0
"""How long a model may take to load, the built-in one's download included."""
_MOST_WAITING = 16
_decoder: msgspec.json.Decoder[wire.AnyWorkerMessage] = msgspec.json.Decoder(wire.AnyWorkerMessage)


class Playground:
    """Answers prompts one at a time, in the order in which they came."""

    def __init__(self, idle_seconds: float, stderr: Path) -> None:
        self._idle_seconds = idle_seconds
        self._stderr = stderr
        self._worker: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._last_id = 0
        self._idle: asyncio.TimerHandle | None = None
        self._in_use: list[str] = []

    def uses(self, path: str) -> bool:
        """Whether a prompt for the model at this path is being answered, or waits."""
        return path in self._in_use

    async def generate(self, ask: Callable[[int], wire.Generate]) -> AsyncGenerator[wire.Token | wire.Generated, None]:
        """The answer's pieces as they come, and at last the whole. `ask` makes the prompt with its id.

        Raises:
            Conflict: too many prompts wait already.
            PlaygroundFailed: the worker could not answer, and why.
        """
        if self._waiting >= _MOST_WAITING:
            raise Conflict("The playground is busy", f"{self._waiting} prompts wait already; try again later.")
        self._last_id += 1
        prompt = ask(self._last_id)
        used = prompt.adapter_path or prompt.model_path
        self._waiting += 1
        self._in_use.append(used)
        try:
            async with self._turn:
                self._keep()
                finished = False
                try:
                    async for message in self._answers(prompt):
                        finished = isinstance(message, wire.Generated)
                        yield message
                except PlaygroundFailed as error:
                    finished = error.detail != _ENDED
                    raise
                finally:
                    if not finished:  # nobody listens any more: the next prompt must not hear this answer
                        await self.close()
                    self._end_when_idle()
        finally:
            self._waiting -= 1
            self._in_use.remove(used)

    async def close(self) -> None:
        """End the worker, if there is one."""
        self._keep()
        worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    async def _answers(self, prompt: wire.Generate) -> AsyncGenerator[wire.Token | wire.Generated, None]:
        worker = await self._running_worker()
        if worker.stdin is None or worker.stdout is None:
            raise PlaygroundFailed("The playground failed", _ENDED)
        try:
            worker.stdin.write(msgspec.json.encode(prompt) + b"\n")
            await worker.stdin.drain()
            while True:
                line = await asyncio.wait_for(worker.stdout.readline(), _LOADING_SECONDS + prompt.deadline_seconds)
                if not line:
                    raise PlaygroundFailed("The playground's worker ended while it answered", _ENDED)
                message = _decoder.decode(line)
                if message.id != prompt.id:
                    continue
                if isinstance(message, wire.GenerationFailed):
                    raise PlaygroundFailed("The model could not answer", f"{message.kind}: {message.message}")
                yield message
                if isinstance(message, wire.Generated):
                    return
        except (ConnectionError, TimeoutError, msgspec.DecodeError, ValueError) as error:
            raise PlaygroundFailed("The playground's worker ended while it answered", _ENDED) from error

    async def _running_worker(self) -> asyncio.subprocess.Process:
        if self._worker is not None and self._worker.returncode is None:
            return self._worker
        descriptor = os.open(self._stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "trainer_entry.infer"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                env=child_environment(),
                limit=wire.MAX_LINE_BYTES * 2,
            )
        finally:
            os.close(descriptor)
        _log.info("playground_started", pid=self._worker.pid)
        return self._worker

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end_when_idle(self) -> None:
        self._keep()
        if self._worker is not None and self._worker.stdin is not None:
            # It ends by itself at the end of its input.
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._worker.stdin.close)


_ENDED = "Probably out of memory, or its deadline passed; the next prompt starts another. See playground.log."
