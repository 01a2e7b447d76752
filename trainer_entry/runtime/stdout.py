"""Claims fd 1 for the wire: everything else that prints goes to stderr.

Standard library and msgspec only: it runs before anything that could print is imported.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from trainer_entry.runtime.disk import FULL
from trainer_entry.wire import (
    MAX_LINE_BYTES,
    AnyTrainerMessage,
    AnyWorkerMessage,
    TrainerFailed,
    TrainerFinished,
    TrainerStopped,
)

_RETRY_SECONDS = 1.0
_LAST_WORDS = (TrainerFinished, TrainerStopped, TrainerFailed)


def claim_stdout() -> int:
    """Take fd 1 away from the process and give it back as a private descriptor.

    Afterwards what Python, C code and child processes print on stdout arrives on stderr.
    """
    descriptor = os.dup(1)  # close-on-exec: no child process inherits it
    os.dup2(2, 1)
    return descriptor


def note(line: str) -> None:
    """Write a line for people into the attempt's log; on a full disk it is left out."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError as error:
        if error.errno not in FULL:
            raise


class LineWriter:
    """Writes whole lines, one at a time, from any thread. A line that was begun is a promise: it is finished."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()

    def write(self, message: AnyTrainerMessage | AnyWorkerMessage) -> None:
        """Write one message as one line.

        Raises:
            ValueError: the line is longer than a reader accepts.
        """
        line = self._encoder.encode(message) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"A {type(message).__name__} of {len(line)} bytes is too long for the wire.")
        with self._lock:
            self._write_all(line)

    def touch(self) -> None:
        """Show whoever follows the file that its writer lives, though it has nothing to say."""
        with contextlib.suppress(OSError):  # a pipe has no time of its own
            os.utime(self._descriptor)

    def _write_all(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                if error.errno not in FULL:
                    raise
                time.sleep(_RETRY_SECONDS)  # a full disk can be emptied


class Wire:
    """The trainer's end of the wire: numbers the messages. Only rank 0 sends, until its last word."""

    def __init__(self, lines: LineWriter, *, speaks: bool) -> None:
        self._lines = lines
        self._speaks = speaks
        self._lock = threading.Lock()
        self._seq = 0
        self._listeners: list[Callable[[AnyTrainerMessage], None]] = []

    def heard_by(self, listener: Callable[[AnyTrainerMessage], None]) -> None:
        """Have every message to come heard by somebody else too, who neither waits, nor sends, nor raises."""
        self._listeners.append(listener)

    def touch(self) -> None:
        """Show that the attempt goes on, though it has nothing to say."""
        if self._speaks:
            self._lines.touch()

    def send(self, message_at: Callable[[int], AnyTrainerMessage]) -> None:
        """Send what `message_at` makes of the next sequence number."""
        with self._lock:
            if not self._speaks:
                return
            message = message_at(self._seq + 1)
            self._lines.write(message)
            self._seq += 1
            self._speaks = not isinstance(message, _LAST_WORDS)
            for listener in self._listeners:
                listener(message)
