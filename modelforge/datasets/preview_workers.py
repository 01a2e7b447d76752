"""Worker processes that tokenize a dataset for a preview or for statistics, by the code that trains.

A worker loads the model's tokenizer, and runs the model's chat template, which is a stranger's program.
"""

import asyncio
import signal
from weakref import WeakValueDictionary

import msgspec
import structlog

from modelforge.errors import BadInput, TooMuchWork
from modelforge.machine.child_limits import ChildLimits
from modelforge.machine.child_process import Ended, run_module
from modelforge.machine.hub_secrets import asks_hub
from modelforge.machine.isolation import Isolation
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.turns import Turns
from trainer_entry import wire

_log = structlog.get_logger()
_WORKER = "trainer_entry.dataset_view"
_SECONDS = 120.0
"""How long a worker may take; a big tokenizer alone takes seconds."""
_GRACE_SECONDS = 5.0
"""So much later the system ends a worker that nobody ended."""
DEADLINE_SECONDS = _SECONDS + _GRACE_SECONDS
_AT_ONCE = 4
_AT_ONCE_OF_A_MODEL = 2
"""So that one whose template never ends does not hold up those of others."""
_MOST_WAITING = 16
_LIMITS = ChildLimits(file_bytes=1 << 30)
"""Its memory it limits itself, once it has loaded its libraries: it knows what they take."""
_WITHOUT_MEMORY = frozenset({-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV})
"""How a worker ends that gets no memory: by the kernel, by its libraries, or by its stack."""


class PreviewWorkers:
    """Runs the workers, a few at once; other requests wait for their turn."""

    def __init__(self, isolation: Isolation | None = None) -> None:
        self._isolation = isolation
        self._turns = Turns("The preview", _MOST_WAITING, _AT_ONCE)
        self._of_models: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def ask(self, request: wire.AnyDatasetViewRequest, client: str) -> bytes:
        """The worker's answer to a client as JSON: a preview or statistics, or that a trial went well.

        Raises:
            BadInput: the model cannot read the dataset, and why.
            TooManyRequests: too many requests wait already.
            TooMuchWork: it took too much time or memory.
        """
        ended = await self._run(request, client)
        if ended.code == wire.PREVIEW_FAILED:
            raise _refusal(request, msgspec.json.decode(ended.output, type=wire.PreviewFailed), ended.words)
        if ended.code == -signal.SIGVTALRM:
            words = "its chat template never ends, and could not be interrupted"
            raise _refusal(request, wire.PreviewFailed(kind="ChatTemplateFails", message=words), ended.words)
        if ended.code != 0:
            raise RuntimeError(f"The preview worker ended with {ended.code}: {ended.words[-2000:]}")
        return ended.output

    async def _run(self, request: wire.AnyDatasetViewRequest, client: str) -> Ended:
        check_trainer_libraries()
        path = request.job.model_path
        of_this = self._of_models.get(path) or asyncio.Semaphore(_AT_ONCE_OF_A_MODEL)
        self._of_models[path] = of_this
        try:
            async with of_this, self._turns.turn(client):
                asked = msgspec.json.encode(request)
                within = () if self._isolation is None else self._isolation.around_view(request.job)
                ended = await run_module(
                    _WORKER, stdin=asked, seconds=_SECONDS, limits=_LIMITS, asks_hub=asks_hub(path), within=within
                )
        except TimeoutError as error:
            raise TooMuchWork(
                "The preview took too long",
                f"It took more than {_SECONDS:.0f} s: the model's chat template may never end, or there is too much to "
                "read. Ask for fewer records (limit, sample), or check the model's chat template.",
            ) from error
        if ended.code in _WITHOUT_MEMORY:
            raise _out_of_memory(request.job.model_name)
        return ended


def _out_of_memory(model: str) -> TooMuchWork:
    return TooMuchWork(
        "The preview took too much memory",
        f"With {model} the worker got no more: ask for fewer records (limit, sample), or check the model's tokenizer.",
    )


def _refusal(request: wire.AnyDatasetViewRequest, failed: wire.PreviewFailed, words: str) -> BadInput | TooMuchWork:
    model = request.job.model_name
    match failed.kind:
        case "OutOfMemory":
            return _out_of_memory(model)
        case "ConflictingParameters":
            field = "max_completion_length"
        case "PromptTooLong" | "NoTrainableTokens":
            field = "max_seq_length"
        case "NoSuchLayers":
            field = "target_modules"
        case "NotTrainedWhole":
            field = "modules_to_save"
        case "ModelUnavailable" | "NoChatTemplate" | "ChatTemplateFails" | "TokenWithoutEmbedding":
            field = "model_name"
        case _:
            _log.warning("preview_failed", kind=failed.kind, words=words[-4000:])
            field = "model_name"
    is_trial = isinstance(request, wire.TrialRequest)
    message = "The training would fail" if is_trial else "The preview cannot be made"
    return BadInput(message, f"{model}: {failed.kind}: {failed.message}", field=field)
