"""The client of the inference worker: a process of its own, started on demand and ended when idle."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec
import structlog

from modelforge.errors import ForgeError, PlaygroundFailed, TooMuchWork
from modelforge.machine.child_environment import child_environment
from modelforge.machine.child_limits import ChildLimits, limit_process
from modelforge.machine.hub_secrets import asks_hub, handed_secrets
from modelforge.machine.isolation import Isolation
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.turns import Turns
from trainer_entry import wire

_log = structlog.get_logger()
_LOADING_SECONDS = 600.0
"""How long a model may take to load, the built-in one's download included."""
_MOST_WAITING = 16
_OUT_OF_TIME = frozenset({-signal.SIGALRM, -signal.SIGVTALRM})
"""How the system ends a worker that goes on after its deadline; it must not be asked the same again."""
_decoder: msgspec.json.Decoder[wire.AnyWorkerMessage] = msgspec.json.Decoder(wire.AnyWorkerMessage)


class InferenceWorker:
    """Answers prompts one at a time, in the order in which they came, and each client's in turn."""

    def __init__(self, idle_seconds: float, stderr: Path, isolation: Isolation | None = None) -> None:
        self._isolation = isolation
        self._within: list[str] = []
        self._idle_seconds = idle_seconds
        self._stderr = stderr
        self._worker: asyncio.subprocess.Process | None = None
        self._may_ask_hub = False
        self._turns = Turns("The playground", _MOST_WAITING)
        self._last_id = 0
        self._idle: asyncio.TimerHandle | None = None
        self._in_use: Counter[str | None] = Counter()
        self._leaving: set[asyncio.Task[int]] = set()
        self._times_given_way = 0

    def uses(self, path: str) -> bool:
        """Whether a prompt for the model at this path is being answered, or waits."""
        return self._in_use[path] > 0

    async def generate(
        self, ask: Callable[[int], wire.Generate], client: str
    ) -> AsyncGenerator[wire.Token | wire.Generated, None]:
        """The answer's pieces as they come, and at last the whole. `ask` makes the client's prompt with its id.

        Raises:
            TooManyRequests: too many prompts wait already.
            PlaygroundFailed: the model could not answer, and why.
            TooMuchWork: the answer took more time or memory than it may, or its GPU was given to a job.
        """
        self._last_id += 1
        prompt = ask(self._last_id)
        used = {prompt.model_path, prompt.adapter_path} - {None}
        self._in_use.update(used)
        try:
            async with self._turns.turn(client):
                self._keep()
                ways = self._times_given_way
                at_rest = False  # whether the worker is done with this prompt: the next must not get this answer
                try:
                    async with aclosing(self._answers(prompt)) as messages:
                        async for message in messages:
                            at_rest = not isinstance(message, wire.Token)
                            if isinstance(message, wire.GenerationFailed):
                                raise _refusal(message)
                            yield message
                except _WorkerEnded as error:
                    raise (_gave_way() if ways != self._times_given_way else _cause_of(error)) from error
                finally:
                    if at_rest:
                        self._retire_when_idle()
                    else:
                        await self.close()
        finally:
            self._in_use.subtract(used)

    async def give_way(self) -> None:
        """End the worker, whose model lies on a GPU that a job is about to have; the next prompt starts another."""
        if self._worker is not None:
            self._times_given_way += 1
            _log.info("playground_gave_way", pid=self._worker.pid)
            await self.close()

    async def close(self) -> None:
        """End the worker, if there is one."""
        self._keep()
        worker, self._worker, self._may_ask_hub, self._within = self._worker, None, False, []
        if worker is not None:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    async def _answers(self, prompt: wire.Generate) -> AsyncGenerator[wire.AnyWorkerMessage, None]:
        """What a worker says to a prompt; one that was dead before it got the prompt is replaced."""
        await self._fit_worker(prompt)
        ways = self._times_given_way
        for may_be_dead in (self._worker is not None, False):
            worker = self._worker = self._worker or await self._start()
            received = False
            try:
                async for message in _conversation(worker, prompt):
                    received = True
                    yield message
            except _WorkerEnded as error:
                await self.close()
                error.code = worker.returncode
                gave_way = ways != self._times_given_way
                if received or gave_way or not may_be_dead or error.code in _OUT_OF_TIME:
                    raise
            else:
                return

    async def _fit_worker(self, prompt: wire.Generate) -> None:
        """End a worker that could not get at the prompt's model: it has no token, or it is set apart from it."""
        network = asks_hub(prompt.model_path)
        models = (prompt.model_path, prompt.adapter_path)
        within = [] if self._isolation is None else self._isolation.around_prompts(models, network=network)
        if (network and not self._may_ask_hub) or within != self._within:
            await self.close()
            self._may_ask_hub, self._within = network, within

    async def _start(self) -> asyncio.subprocess.Process:
        check_trainer_libraries()
        descriptor = os.open(self._stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with handed_secrets(asks_hub=self._may_ask_hub) as handed:
                worker = await asyncio.create_subprocess_exec(
                    *(*self._within, sys.executable, "-m", "trainer_entry.infer"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=descriptor,
                    env=child_environment(**handed.variables),
                    pass_fds=handed.descriptors,
                    limit=wire.MAX_LINE_BYTES * 2,
                )
        finally:
            os.close(descriptor)
        limit_process(worker.pid, ChildLimits())  # its memory it limits itself, by the model
        _log.info("playground_started", pid=worker.pid)
        return worker

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _retire_when_idle(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire)

    def _retire(self) -> None:
        """Let the worker go: it ends by itself at the end of its input."""
        worker, self._worker, self._may_ask_hub, self._within = self._worker, None, False, []
        if worker is not None and worker.stdin is not None:
            worker.stdin.close()
            leaving = asyncio.get_running_loop().create_task(worker.wait())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


def _gave_way() -> ForgeError:
    return TooMuchWork(
        "The playground gave its GPU to a job",
        "One was launched on the GPU that the model lay on. Ask again: the model is loaded anew, and answers as soon "
        "as it fits beside the job.",
    )


class _WorkerEnded(Exception):
    """The worker is gone, or says what cannot be understood. `code`: what it ended with."""

    code: int | None = None


def _refusal(failed: wire.GenerationFailed) -> ForgeError:
    said = f"{failed.kind}: {failed.message}"
    match failed.kind:
        case "OutOfMemory":
            return TooMuchWork(
                "The answer took too much memory", f"{said} Send a shorter prompt, or ask another model."
            )
        case _:
            return PlaygroundFailed("The model could not answer", said, kind=failed.kind)


def _cause_of(ended: _WorkerEnded) -> ForgeError:
    if ended.code in _OUT_OF_TIME:
        return TooMuchWork(
            "The answer took too long",
            "It went on after its deadline (playground_deadline_seconds): the model's chat template may never end, or "
            "the prompt takes too long to read. Ask another model, or send a shorter prompt.",
        )
    return TooMuchWork(
        "The playground's worker ended while it answered",
        "Probably out of memory, or out of time; the next prompt starts another. "
        "Its last words stand in playground.log in the data directory.",
    )


async def _conversation(
    worker: asyncio.subprocess.Process, prompt: wire.Generate
) -> AsyncGenerator[wire.AnyWorkerMessage, None]:
    """One prompt, and the worker's messages to the last."""
    if worker.stdin is None or worker.stdout is None:
        raise _WorkerEnded
    try:
        worker.stdin.write(msgspec.json.encode(prompt) + b"\n")
        await worker.stdin.drain()
        while line := await asyncio.wait_for(worker.stdout.readline(), _LOADING_SECONDS + prompt.deadline_seconds):
            message = _decoder.decode(line)
            yield message
            if not isinstance(message, wire.Token):
                return
    except (ConnectionError, TimeoutError, msgspec.DecodeError, ValueError) as error:
        raise _WorkerEnded from error
    raise _WorkerEnded
