"""What a trainer refuses to go on with, and how a failure is told. The names are a message's `kind`."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when the disk or the quota is at its end: that can change while one waits."""
NO_ROOM = FULL | {errno.EFBIG}
"""The same, and the limit on a file's size, which is not lifted while it is written."""
_NO_ROOM_WORDS = tuple(os.strerror(number) for number in sorted(NO_ROOM))
_PROBE_BYTES = 1 << 20
_MESSAGE_CHARACTERS = 2_000
_NO_MEMORY_WORDS = (
    *("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"),
)


class DiskFull(Exception):
    """There is no room for what is to be saved."""


class DatasetChanged(Exception):
    """The file is not the one that the job was accepted with."""


class NoTrainableTokens(Exception):
    """No record has a token that the loss is computed on."""


class LossNotFinite(Exception):
    """The loss was no number from the beginning: there is nothing to learn from it."""


class NoChatTemplate(Exception):
    """The records are conversations, and the model does not say how to write one."""


class ChatTemplateFails(Exception):
    """The model's chat template cannot write a conversation."""


class ConflictingParameters(Exception):
    """Two parameters cannot both be had."""


class WrongRecords(Exception):
    """The records are of a format that the task or the strategy cannot learn from."""


class ModelUnavailable(Exception):
    """The model is neither on this machine nor reachable."""


class BaseChanged(Exception):
    """The base model's weights are not those that the adapter was trained on."""


class NotMergeable(Exception):
    """The adapter cannot be put into the weights of its base."""


class PlaceTaken(Exception):
    """Where the export was to go there is something else."""


class CopyDiffers(Exception):
    """What was exported does not read as what was written."""


class HubRefused(Exception):
    """The hub did not take the model, or could not be reached."""


class PromptTooLong(Exception):
    """The prompt leaves no room for an answer in the model's context."""


@contextlib.contextmanager
def told_with_line(line: int) -> Iterator[None]:
    """Write out a record in the block; where the chat template cannot, it is told in which line the record stands."""
    try:
        yield
    except ChatTemplateFails as error:
        raise ChatTemplateFails(f"Line {line} of the dataset: {error}") from error


def kind_of(error: BaseException) -> str:
    """The exception's type, or `OutOfMemory` or `DiskFull`, which the libraries name by many types and words."""
    if _says_no_room(error):
        return "DiskFull"
    told = isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _NO_MEMORY_WORDS)
    if told or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "OutOfMemory"
    return type(error).__name__


@contextlib.contextmanager
def told_as_disk_full(folder: Path) -> Iterator[None]:
    """Save into a folder in the block; what there was no room for is taken away again, and told as `DiskFull`.

    Half a checkpoint on a full disk is of no use, and without it the last word finds room.
    """
    try:
        yield
    except Exception as error:
        # torch.save says only that its writer failed: whether for want of room, the folder itself shows.
        if not _says_no_room(error) and not ("inline_container" in str(error) and not _has_room(folder)):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free // 1_000_000
        raise DiskFull(
            f"There was no room to save {folder.name} in {folder.parent}, where {free} MB are free without it. "
            "Free some space, or keep fewer checkpoints (save_total_limit), and resume the job."
        ) from error


def _says_no_room(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            return True
        # What safetensors raises in Rust has the system's words, and no number.
        if isinstance(error, Exception) and any(words in str(error) for words in _NO_ROOM_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_room(folder: Path) -> bool:
    """Whether a file here can become as large as the largest is, and a little larger."""
    probe = folder / "probe"
    try:
        size = max((file.stat().st_size for file in folder.rglob("*") if file.is_file()), default=0)
        with probe.open("wb", buffering=0) as file:
            file.seek(size)
            return file.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
    except OSError as error:
        if error.errno in NO_ROOM:
            return False
        raise
    finally:
        probe.unlink(missing_ok=True)


def message_of(error: BaseException) -> str:
    """What the exception says, or its type if it says nothing."""
    return str(error).strip()[:_MESSAGE_CHARACTERS] or type(error).__name__
