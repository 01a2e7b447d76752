"""Worker processes that tokenize a dataset for a preview or for statistics, by the code that trains.

A worker loads the model's tokenizer, and runs the model's chat template, which is a stranger's program.
"""

import asyncio
import signal

import msgspec
import structlog

from modelforge.errors import BadInput, Conflict, TooMuchWork
from modelforge.machine.child_process import Ended, run_module
from trainer_entry import wire

_log = structlog.get_logger()
_WORKER = "trainer_entry.dataset_view"
_SECONDS = 120.0
"""How long a worker may take; a big tokenizer alone takes seconds."""
_GRACE_SECONDS = 5.0
"""So much later the system ends a worker that nobody ended."""
DEADLINE_SECONDS = _SECONDS + _GRACE_SECONDS
_AT_ONCE = 2
_MOST_WAITING = 16


class PreviewWorkers:
    """Runs the workers, a few at once; other requests wait for their turn."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def ask(self, request: wire.AnyDatasetViewRequest) -> bytes:
        """The worker's answer as JSON: a preview or statistics.

        Raises:
            BadInput: the model cannot read the dataset, and why.
            Conflict: too many requests wait already.
            TooMuchWork: it took too much time or memory.
        """
        ended = await self._run(request)
        if ended.code == wire.PREVIEW_FAILED:
            raise _refusal(msgspec.json.decode(ended.output, type=wire.PreviewFailed), ended.words)
        if ended.code != 0:
            raise RuntimeError(f"The preview worker ended with {ended.code}: {ended.words[-2000:]}")
        return ended.output

    async def _run(self, request: wire.AnyDatasetViewRequest) -> Ended:
        if self._waiting >= _MOST_WAITING:
            raise Conflict(
                "Too many previews are asked for", f"{self._waiting} requests wait already; try again later."
            )
        self._waiting += 1
        try:
            async with self._places:
                ended = await run_module(_WORKER, stdin=msgspec.json.encode(request), seconds=_SECONDS)
        except TimeoutError as error:
            raise TooMuchWork(
                "The preview took too long",
                f"It took more than {_SECONDS:.0f} s: the model's chat template may never end, or there is too much to "
                "read. Ask for fewer records (limit, sample), or check the model's chat template.",
            ) from error
        finally:
            self._waiting -= 1
        if ended.code == -signal.SIGKILL:
            raise TooMuchWork(
                "The preview worker was killed",
                "Probably there was no memory left for it: ask for fewer records (limit, sample), or check the "
                "model's chat template.",
            )
        return ended


def _refusal(failed: wire.PreviewFailed, words: str) -> BadInput:
    match failed.kind:
        case "ConflictingParameters":
            field = "max_completion_length"
        case "PromptTooLong":
            field = "max_seq_length"
        case "ModelUnavailable" | "NoChatTemplate" | "ChatTemplateFails":
            field = "model_name"
        case _:
            _log.warning("preview_failed", kind=failed.kind, words=words[-4000:])
            field = "model_name"
    return BadInput("The preview cannot be made", f"{failed.kind}: {failed.message}", field=field)
