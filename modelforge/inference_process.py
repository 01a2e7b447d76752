"""A process of the inference worker, and the conversations with it: one for each prompt that it answers."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec
import structlog

from modelforge.machine.child_environment import child_environment
from modelforge.machine.child_limits import ChildLimits, limit_process
from modelforge.machine.hub_secrets import handed_secrets
from trainer_entry import wire

_log = structlog.get_logger()
_LOADING_SECONDS = 600.0
"""How long a model may take to load, the built-in one's download included."""
_REACTION_SECONDS = 1.0
"""How soon a worker must let go of an answer that nobody waits for; between two tokens it hears."""
_CLOSED = (ConnectionError, RuntimeError)
"""What is raised for a pipe whose other end is gone: uvloop has a word of its own."""
_decoder: msgspec.json.Decoder[wire.AnyWorkerMessage] = msgspec.json.Decoder(wire.AnyWorkerMessage)


class WorkerEnded(Exception):
    """The worker is gone, or says what cannot be understood, or nothing. `answered`: it had said some of the answer."""

    def __init__(self, *, answered: bool) -> None:
        super().__init__()
        self.answered = answered


class InferenceProcess:
    """A worker that runs. `is_over`: nothing more is to be had of it; `has_spoken`: it got as far as an answer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.is_over = self.has_spoken = False
        self._process = process
        self._heard: dict[int, asyncio.Queue[wire.AnyWorkerMessage | None]] = {}
        self._left: set[int] = set()
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        self._reader = loop.create_task(self._read())

    @classmethod
    async def start(cls, within: Sequence[str], stderr: Path, *, asks_hub: bool) -> "InferenceProcess":
        """Start a worker; what it prints becomes the content of the file `stderr`."""
        descriptor = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with handed_secrets(asks_hub=asks_hub) as handed:
                process = await asyncio.create_subprocess_exec(
                    *(*within, sys.executable, "-m", "trainer_entry.infer"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=descriptor,
                    env=child_environment(**handed.variables),
                    pass_fds=handed.descriptors,
                    limit=wire.MAX_LINE_BYTES * 2,
                )
        finally:
            os.close(descriptor)
        limit_process(process.pid, ChildLimits())  # its memory it limits itself, by the model
        _log.info("playground_started", pid=process.pid)
        return cls(process)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def ask(self, prompt: wire.Generate) -> AsyncGenerator[wire.AnyWorkerMessage, None]:
        """What the worker says to a prompt, to the last. Who leaves before is not answered any more.

        Raises:
            WorkerEnded: it ended, or has said nothing to anybody for longer than loading and answering take.
        """
        heard = self._heard[prompt.id] = asyncio.Queue()
        message: wire.AnyWorkerMessage | None = None
        try:
            await self._say(prompt)
            limit = _LOADING_SECONDS + prompt.deadline_seconds
            while True:
                said = await self._next(heard, limit)
                if said is None:
                    raise WorkerEnded(answered=message is not None)
                message = said
                yield message
                if not isinstance(message, wire.Token):
                    return
        finally:
            del self._heard[prompt.id]
            if (message is None or isinstance(message, wire.Token)) and not self.is_over:
                self._withdraw(prompt.id)

    async def end(self) -> int | None:
        """Kill the worker; what it ended with."""
        self._kill()
        await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        return self._process.returncode

    async def let_go(self) -> None:
        """Let the worker end by itself, at the end of its input, and wait for it."""
        self.is_over = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def _next(
        self, heard: asyncio.Queue[wire.AnyWorkerMessage | None], limit: float
    ) -> wire.AnyWorkerMessage | None:
        while not (self.is_over and heard.empty()):
            try:
                return await asyncio.wait_for(heard.get(), limit)
            except TimeoutError:
                if asyncio.get_running_loop().time() - self._heard_at >= limit:
                    return None
        return None

    async def _say(self, request: wire.AnyWorkerRequest) -> None:
        if self._process.stdin is not None and not self.is_over:
            with contextlib.suppress(*_CLOSED):  # its end is heard by who reads
                self._process.stdin.write(msgspec.json.encode(request) + b"\n")
                await self._process.stdin.drain()

    def _withdraw(self, number: int) -> None:
        if self._process.stdin is not None:
            self._left.add(number)
            with contextlib.suppress(*_CLOSED):
                self._process.stdin.write(msgspec.json.encode(wire.Withdraw(id=number)) + b"\n")
            asyncio.get_running_loop().call_later(_REACTION_SECONDS, self._end_if_deaf, number)

    def _end_if_deaf(self, number: int) -> None:
        """Kill a worker that goes on with what nobody waits for, unless others wait for it."""
        if number in self._left and not self._heard and not self.is_over:
            _log.info("playground_does_not_react", pid=self.pid)
            self._kill()

    def _kill(self) -> None:
        self.is_over = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _read(self) -> None:
        """Hand each message to whoever waits for it."""
        try:
            while self._process.stdout is not None and (line := await self._process.stdout.readline()):
                self._heard_at = asyncio.get_running_loop().time()
                message = _decoder.decode(line)
                self.has_spoken = True
                if not isinstance(message, wire.Token):
                    self._left.discard(message.id)
                if (heard := self._heard.get(message.id)) is not None:
                    heard.put_nowait(message)
        except (ConnectionError, msgspec.DecodeError, ValueError) as error:
            _log.warning("playground_not_understood", pid=self.pid, error=str(error))
        finally:
            self.is_over = True
            for heard in self._heard.values():
                heard.put_nowait(None)
