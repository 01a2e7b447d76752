"""A command on a terminal of its own: typed at, interrupted by its keys, and read as a person sees it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from support.running_server import environment

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")

_WAITS_FOR_KEYS = 0.5


class OnTerminal:
    """`modelforge` with these arguments, on a terminal of so many columns."""

    def __init__(self, *arguments: str, columns: int = 80, **variables: str) -> None:
        self._read, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        added = environment(TERM="xterm-256color", **variables)
        for name in ("COLUMNS", "LINES", *(() if "NO_COLOR" in variables else ("NO_COLOR",))):
            added.pop(name, None)
        command = [sys.executable, "-m", "support.owns_terminal", *arguments]
        self._process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=added, start_new_session=True
        )
        os.close(terminal)
        self.written, self._seen = b"", 0

    @property
    def text(self) -> str:
        """What was written, less the commands to the terminal; a line that was written anew counts once more."""
        return ESCAPES.sub(b"", self.written).replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode(errors="replace")

    def read_until(self, words: str, seconds: float = 60) -> str:
        """Wait for words that come after all that was waited for; what was written until then."""
        begin, deadline = len(self.text), time.monotonic() + seconds
        while words not in self.text[self._seen :]:
            if not self._more(deadline):
                self._kill()
                raise AssertionError(f"{words!r} did not come: {self.text!r}")
        self._seen = self.text.index(words, self._seen) + len(words)
        return self.text[begin:]

    def type(self, keys: str) -> None:
        """Type keys: `\\x03` is Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._read, keys.encode())

    def end(self, seconds: float = 60) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self._more(deadline):
            pass
        try:
            return self._process.wait(timeout=max(deadline - time.monotonic(), 1))
        finally:
            self._kill()

    def interrupt(self) -> None:
        """Ctrl-C at a prompt: readline hears it once it waits for keys, a moment after its prompt is written."""
        time.sleep(_WAITS_FOR_KEYS)
        self.type("\x03")

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
        try:
            part = os.read(self._read, 1 << 16) if ready else b""
        except OSError:  # what a terminal says at its end
            part = b""
        self.written += part
        return bool(part)
