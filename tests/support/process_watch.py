"""What any process on this machine shows of secrets, while something goes on."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class ProcessWatch(threading.Thread):
    """Looks into the environment and the command line of every process below one, again and again, for some texts.

    Those of an attempt are below nobody, and known by the folder of their server, which stands in their command.
    """

    def __init__(self, secrets: tuple[str, ...], folder: Path, server: int) -> None:
        super().__init__(daemon=True)
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._folder = str(folder).encode()
        self._server = str(server)
        self._command = Path(f"/proc/{server}/cmdline").read_bytes()
        self._ended = threading.Event()
        self.looked_at: set[str] = set()
        self.found: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            for process in Path("/proc").iterdir():
                if process.name.isdigit() and process.name != self._server:
                    self._look_at(process)

    def _look_at(self, process: Path) -> None:
        try:
            command = (process / "cmdline").read_bytes()
            shown = (process / "environ").read_bytes() + command
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # gone, or somebody else's
            return
        if parent != self._server and self._folder not in command:
            return
        if command == self._command:  # a copy of the server that is about to become another program
            return
        words = command.replace(b"\0", b" ").decode(errors="replace")
        self.looked_at.add(words)
        if any(secret in shown for secret in self._secrets):
            self.found.add(words)
