"""The processes of one attempt: what they agree on together, and how one of them learns of another's end.

Whatever ends a loop is settled by all of them at the same place in it: one that left alone would leave the others
waiting for its part of the next sum. The torch that this needs is imported late.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from trainer_entry.runtime.disk import FULL
from trainer_entry.runtime.proc import descendants, runs
from trainer_entry.runtime.stdout import note
from trainer_entry.wire import TrainerFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

_MODULE = b"trainer_entry.train"
_PATIENCE = timedelta(days=30)  # one of them may judge a model's answers for hours; the launcher ends them if one dies
_NOTICED_SECONDS = 2.0  # a dying process closes its sockets before it is gone
_POLL_SECONDS = 0.02
_LOST_WORDS = ("Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe", "gloo")


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many they are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def spans_nodes() -> bool:
    """Whether some of them are on other machines."""
    return _local_count() < count()


def _local_count() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or count())


def threads(of_all: int) -> int:
    """One process's share of the processor's threads."""
    return max(1, of_all // count())


def prepare() -> None:
    """Keep to this machine's own network, where all of them are on it, and to this process's own device."""
    if count() == 1:
        return
    if not spans_nodes():
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    import torch

    if torch.cuda.is_available():  # a quantized model is loaded to the current one
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def agree(asked: bool) -> bool:  # noqa: FBT001 - what is asked
    """Whether any of them was asked. For all of them, at the same place."""
    return agree_on(asked)[0]


def agree_on(*asked: bool) -> list[bool]:
    """The same for several questions at once."""
    return [answer > 0 for answer in _combined(asked, "MAX")]


def total(number: int) -> int:
    """The sum of their numbers. For all of them, at the same place."""
    return _combined([number], "SUM")[0]


def sums(numbers: torch.Tensor) -> torch.Tensor:
    """The sums of all their numbers, place by place. For all of them, at the same place."""
    combined = numbers.detach().double().cpu()
    if count() > 1:
        import torch

        torch.distributed.all_reduce(combined, group=_group())
    return combined


def wait_for_all() -> None:
    """Go on once all of them are here."""
    agree(asked=False)


def _combined(numbers: Any, how: str) -> list[int]:
    if count() == 1:
        return [int(number) for number in numbers]
    import torch

    combined = torch.tensor([int(number) for number in numbers], dtype=torch.int64)
    torch.distributed.all_reduce(combined, op=getattr(torch.distributed.ReduceOp, how), group=_group())
    return [int(number) for number in combined]


@functools.cache
def _group() -> Any:
    """A way between the processors: what is settled there need not wait for a GPU."""
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)


def are_connected() -> bool:
    """Whether there is a way between them yet: the first trainer opens it."""
    if count() == 1:
        return True
    import torch

    return bool(torch.distributed.is_initialized())


# ---- another one's end ----


def lost_contact(error: BaseException) -> bool:
    """Whether an exception only says that another process is no longer reached."""
    return count() > 1 and isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST_WORDS)


def another_ended() -> bool:
    """Whether one of them on this machine is gone, or is soon."""
    return count() > 1 and comes_true(lambda: _count_alive() < _local_count())


def comes_true(condition: Callable[[], bool]) -> bool:
    """Whether something holds now or soon: what ends a process reaches the others at slightly different moments."""
    deadline = time.monotonic() + _NOTICED_SECONDS
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return holds


def _count_alive() -> int:
    launcher = os.getppid()
    return sum(parent == launcher and runs(pid, _MODULE) for pid, parent in descendants(launcher).items())


def leave_word(folder: Path, word: TrainerFailed) -> None:
    """Say why this process ends, for rank 0, which is on the wire."""
    message = msgspec.structs.replace(word, message=f"{word.message} (Process {rank() + 1} of {count()}.)")
    partial = folder / f"rank-{rank()}.partial"
    try:
        partial.write_bytes(msgspec.json.encode(message))
        partial.rename(_word(folder, rank()))
    except OSError as error:
        if error.errno not in FULL:
            raise
        note(f"There was no room to say why process {rank() + 1} ended.")


def word_of_another(folder: Path) -> TrainerFailed | None:
    """Why another process ended, if it could say so."""
    left = [path for number in range(1, count()) if (path := _word(folder, number)).exists()]
    if not left:
        return None
    first = min(left, key=lambda path: path.stat().st_mtime_ns)
    return msgspec.json.decode(first.read_bytes(), type=TrainerFailed)


def _word(folder: Path, number: int) -> Path:
    return folder / f"rank-{number}.json"
