"""Files on a disk that may be far: where it fails, nothing is concluded from that, and it is asked again."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

_log = structlog.get_logger()
RETRY_SECONDS = 1.0
_T = TypeVar("_T")


async def until_it_answers(asks: Callable[[], _T]) -> _T:
    """What is read, or done, in a thread; again for as long as the file system fails (EIO, ESTALE, EACCES, no room).

    What is not there is no failure: `asks` has to see to that.
    """
    is_told = False
    while True:
        try:
            return await asyncio.to_thread(asks)
        except OSError as error:
            if not is_told:
                _log.warning("disk_does_not_answer", error=str(error))
            is_told = True
        await asyncio.sleep(RETRY_SECONDS)


def read_whole(path: Path, kind: type[_T]) -> _T | None:
    """What a file says that is written once, whole; None where it is not there, or is seen before its content is."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
