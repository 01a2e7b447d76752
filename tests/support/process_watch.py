"""What any process on this machine shows of secrets, while something goes on."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class ProcessWatch(threading.Thread):
    """Looks into the environment and the command line of every process but some, again and again, for some texts."""

    def __init__(self, secrets: tuple[str, ...], *but: int) -> None:
        super().__init__(daemon=True)
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._but = {str(pid) for pid in but}
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
                if process.name.isdigit() and process.name not in self._but:
                    self._look_at(process)

    def _look_at(self, process: Path) -> None:
        try:
            command = (process / "cmdline").read_bytes()
            shown = (process / "environ").read_bytes() + command
        except OSError:  # gone, or somebody else's
            return
        words = command.replace(b"\0", b" ").decode(errors="replace")
        self.looked_at.add(words)
        if any(secret in shown for secret in self._secrets):
            self.found.add(words)
