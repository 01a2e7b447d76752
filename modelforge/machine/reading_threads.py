"""Threads for reading what may not answer: files of strangers, and disks of the network.

They are few and their own, so that what hangs in them takes no thread of the rest of the server, and they do not hold
up its end, as those of asyncio and `concurrent.futures` would.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from modelforge.errors import TooMuchWork

_THREADS = 8
_SECONDS = 30.0
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Reading:
    """A call that waits for a thread, and whether anybody still waits for it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.given_up = False


_waiting: SimpleQueue[_Reading] = SimpleQueue()
_lock = threading.Lock()
_threads: list[threading.Thread] = []


async def read_apart(function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """What a function returns that reads; it runs in a thread that may hang.

    Raises:
        TooMuchWork: it did not return in time, or no thread was free in that time.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    def tell(value: _T | None, error: BaseException | None) -> None:
        if not result.done():
            if error is None:
                result.set_result(value)  # type: ignore[arg-type]
            else:
                result.set_exception(error)

    def call() -> None:
        value, error = None, None
        try:
            value = function(*arguments, **named)
        except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, value, error)

    reading = _Reading(call)
    _begin(reading)
    try:
        async with asyncio.timeout(_SECONDS):
            return await result
    except TimeoutError as error:
        if not result.cancelled():  # the function's own
            raise
        raise TooMuchWork(
            "The files of a model do not come",
            f"Its disk gave nothing for {_SECONDS:.0f} s, or others hang that are read: check whether its disk, which "
            "may be one of the network, still answers.",
        ) from error
    finally:
        reading.given_up = True


def _begin(reading: _Reading) -> None:
    _waiting.put(reading)
    with _lock:
        if len(_threads) < _THREADS:
            _threads.append(threading.Thread(target=_serve, name="reading", daemon=True))
            _threads[-1].start()


def _serve() -> None:
    while True:
        reading = _waiting.get()
        if not reading.given_up:
            reading.call()
