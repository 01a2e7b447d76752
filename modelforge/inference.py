"""The client of the inference worker: a process of its own, started on demand and ended when idle."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from contextlib import aclosing
from pathlib import Path

import msgspec
import structlog

from modelforge.errors import ForgeError, PlaygroundFailed, TooMuchWork, TrainersMissing
from modelforge.inference_process import InferenceProcess, WorkerEnded
from modelforge.machine.host_memory import AHEAD_BYTES, host_memory
from modelforge.machine.hub_secrets import asks_hub
from modelforge.machine.isolation import Isolation
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.turns import Turns
from trainer_entry import wire

_log = structlog.get_logger()
_MOST_WAITING = 16
_OUT_OF_TIME = frozenset({-signal.SIGALRM, -signal.SIGVTALRM})
"""How the system ends a worker that goes on after its deadline; it must not be asked the same again."""


class InferenceWorker:
    """Answers prompts for one model together, those for another after them, and each client's in turn."""

    def __init__(
        self, idle_seconds: float, stderr: Path, isolation: Isolation | None = None, *, keeps_one: bool = False
    ) -> None:
        """`keeps_one`: `prepare` may start a worker ahead."""
        self._keeps_one = keeps_one and isolation is None
        self._isolation = isolation
        self._within: list[str] = []
        self._idle_seconds = idle_seconds
        self._stderr = stderr
        self._process: InferenceProcess | None = None
        self._may_ask_hub = False
        self._turns = Turns("The playground", _MOST_WAITING, wire.MOST_ANSWERS_AT_ONCE)
        self._starting = asyncio.Lock()
        self._last_id = 0
        self._answered_now = 0
        self._idle: asyncio.TimerHandle | None = None
        self._in_use: Counter[str | None] = Counter()
        self._leaving: set[asyncio.Task[None]] = set()
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
            async with self._turns.turn(client, self._kind_of(prompt)):
                self._keep()
                self._answered_now += 1
                try:
                    async with aclosing(self._whole_answer(prompt)) as messages:
                        async for message in messages:
                            yield message
                finally:
                    self._answered_now -= 1
                    if not self._answered_now:
                        self._retire_when_idle()
        finally:
            self._in_use.subtract(used)

    def prepare(self) -> None:
        """Start a worker without a model, if there is none and memory for one: its libraries take it seconds."""
        if self._keeps_one and self._process is None:
            self._keep_until_done(self._start_ahead())

    async def _start_ahead(self) -> None:
        async with self._starting:
            if self._process is not None or (await asyncio.to_thread(host_memory)).available < AHEAD_BYTES:
                return
            try:
                await asyncio.to_thread(check_trainer_libraries)
                self._process = await InferenceProcess.start((), self._stderr, asks_hub=False)
            except (OSError, TrainersMissing) as error:  # the next prompt says so
                _log.info("playground_not_started_ahead", error=str(error))

    async def shut(self) -> None:
        """End the worker, if there is one, and start no other ahead."""
        self._keeps_one = False
        async with self._starting:
            await self.close()

    async def give_way(self) -> None:
        """End the worker, whose model lies on a GPU that a job is about to have; the next prompt starts another."""
        if self._process is not None and (self._process.has_spoken or self._answered_now):
            self._times_given_way += 1
            _log.info("playground_gave_way", pid=self._process.pid)
            await self.close()

    async def close(self) -> None:
        """End the worker, if there is one."""
        self._keep()
        process, self._process, self._may_ask_hub, self._within = self._process, None, False, []
        if process is not None:
            await process.end()

    def _kind_of(self, prompt: wire.Generate) -> Hashable:
        """What prompts have in common that one worker answers at once; set apart, it sees one adapter's files."""
        return (prompt.model_path, prompt.task, None if self._isolation is None else prompt.adapter_path)

    async def _whole_answer(self, prompt: wire.Generate) -> AsyncGenerator[wire.Token | wire.Generated, None]:
        """The answer, at whose end the probabilities of all its pieces stand."""
        logprobs: list[wire.TokenLogprob] = []
        async with aclosing(self._answers(prompt)) as messages:
            async for message in messages:
                match message:
                    case wire.GenerationFailed():
                        raise _refusal(message)
                    case wire.Token():
                        logprobs += message.logprobs
                        yield message
                    case wire.Generated():
                        yield msgspec.structs.replace(message, logprobs=tuple(logprobs)) if logprobs else message

    async def _answers(self, prompt: wire.Generate) -> AsyncGenerator[wire.AnyWorkerMessage, None]:
        """What a worker says to a prompt; one that was dead before it got the prompt is replaced."""
        for may_be_dead in (True, False):
            process, ways = await self._fitting(prompt), self._times_given_way
            spoke = process.has_spoken
            try:
                async with aclosing(process.ask(prompt)) as messages:
                    async for message in messages:
                        yield message
            except WorkerEnded as ended:
                if self._process is process:
                    await self.close()
                code = await process.end()
                if ways != self._times_given_way:
                    raise _gave_way() from ended
                if ended.answered or not spoke or not may_be_dead or code in _OUT_OF_TIME:
                    raise _cause_of(code) from ended
            else:
                return

    async def _fitting(self, prompt: wire.Generate) -> InferenceProcess:
        """A worker that can get at the prompt's model: it may have to have a token, or be set apart around it."""
        network = asks_hub(prompt.model_path)
        models = (prompt.model_path, prompt.adapter_path)
        within = [] if self._isolation is None else self._isolation.around_prompts(models, network=network)
        async with self._starting:
            if self._process is not None and (
                self._process.is_over or (network and not self._may_ask_hub) or within != self._within
            ):
                await self.close()
            if self._process is None:
                check_trainer_libraries()
                self._process = await InferenceProcess.start(within, self._stderr, asks_hub=network)
                self._may_ask_hub, self._within = network, within
            return self._process

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _retire_when_idle(self) -> None:
        self._keep()
        self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire)

    def _retire(self) -> None:
        """Let the worker go: it ends by itself at the end of its input."""
        process, self._process, self._may_ask_hub, self._within = self._process, None, False, []
        if process is not None:
            self._keep_until_done(self._let_go(process))

    async def _let_go(self, process: InferenceProcess) -> None:
        await process.let_go()
        self.prepare()

    def _keep_until_done(self, work: Coroutine[None, None, None]) -> None:
        leaving = asyncio.get_running_loop().create_task(work)
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


def _gave_way() -> ForgeError:
    return TooMuchWork(
        "The playground gave its GPU to a job",
        "One was launched on the GPU that the model lay on. Ask again: the model is loaded anew, and answers as soon "
        "as it fits beside the job.",
    )


def _refusal(failed: wire.GenerationFailed) -> ForgeError:
    said = f"{failed.kind}: {failed.message}"
    match failed.kind:
        case "OutOfMemory":
            return TooMuchWork(
                "The answer took too much memory", f"{said} Send a shorter prompt, or ask another model."
            )
        case _:
            return PlaygroundFailed("The model could not answer", said, kind=failed.kind)


def _cause_of(code: int | None) -> ForgeError:
    if code in _OUT_OF_TIME:
        return TooMuchWork(
            "The answer took too long",
            "It, or one that was written beside it, went on after its deadline (playground_deadline_seconds): the "
            "model's chat template may never end, or the prompt takes too long to read. Ask another model, or send a "
            "shorter prompt.",
        )
    return TooMuchWork(
        "The playground's worker ended while it answered",
        "Probably out of memory, or out of time; the next prompt starts another. "
        "Its last words stand in playground.log in the data directory.",
    )
