"""How a shim whose trainer was started ahead waits for the attempt that it is to be. Standard library only."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable

_MOST_BYTES = 1 << 16


def await_order(server: socket.socket, trainer: socket.socket, is_over: Callable[[], bool]) -> bytes | None:
    """The line by which the server says what to do; None once it is gone, or `is_over`, which a child's end may bring.

    What the trainer says meanwhile is passed on.
    """
    waking, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # one that is ignored wakes nobody
    signal.set_wakeup_fd(wakes)
    try:
        return _order(server, trainer, waking, is_over)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(waking)
        os.close(wakes)


def _order(server: socket.socket, trainer: socket.socket, waking: int, is_over: Callable[[], bool]) -> bytes | None:
    line = b""
    heard: list[socket.socket | int] = [server, trainer, waking]
    while not is_over():
        readable, _, _ = select.select(heard, (), ())
        if waking in readable:
            os.read(waking, _MOST_BYTES)
        if trainer in readable:
            said = _received(trainer)
            if not said:
                heard.remove(trainer)
            with contextlib.suppress(OSError):  # its end is read below
                server.sendall(said)
        if server in readable:
            if not (said := _received(server)):
                return None
            line += said
            if line.endswith(b"\n"):
                return line
    return None


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(_MOST_BYTES)
    except ConnectionError:
        return b""
