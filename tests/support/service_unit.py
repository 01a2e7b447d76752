"""`python -m support.service_unit UNIT COMMAND…`: supervises a command as systemd does, by what the unit file says.

On its standard input: `restart` and `stop`. It says `started PID` for each start of the main process, `stopped`
after each stop, and `left N` for the processes that a stop left. What systemd finds by control group is found here
by descent: this process is the subreaper of all that it starts.
"""

import configparser
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from trainer_entry.runtime.proc import descendants

PR_SET_CHILD_SUBREAPER = 36


class Unit:
    """The main process of a unit, and what came of it."""

    def __init__(self, file: Path, command: list[str]) -> None:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(file.read_text())
        settings = parser["Service"]
        self._kills_all = settings.get("KillMode", "control-group") == "control-group"
        self._restarts = settings.get("Restart", "no") == "on-failure"
        self._restart_seconds = float(settings.get("RestartSec", "0.1"))
        self._stop_seconds = float(settings.get("TimeoutStopSec", "90"))
        self._command = command
        self._stopping = False
        self.start()

    def start(self) -> None:
        self.main = subprocess.Popen(self._command, stdout=sys.stderr)
        sys.stdout.write(f"started {self.main.pid}\n")
        sys.stdout.flush()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after a while: to the main process, or to all of the unit, as KillMode has it."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_seconds
        while self.main.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        while self._kills_all and descendants(os.getpid()) and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)
            self._reap()
            time.sleep(0.02)
        if self.main.poll() is None:
            self.main.kill()
            self.main.wait()
        self._reap()
        sys.stdout.write(f"stopped\nleft {len(descendants(os.getpid()))}\n")
        sys.stdout.flush()
        self._stopping = False

    def watch(self) -> None:
        """Start the main process again when it failed."""
        while True:
            time.sleep(0.05)
            if not self._stopping and self.main.poll() not in {None, 0, -signal.SIGTERM} and self._restarts:
                time.sleep(self._restart_seconds)
                self.start()

    def _signal(self, number: signal.Signals) -> None:
        for pid in descendants(os.getpid()) if self._kills_all else [self.main.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if int(pid) != self.main.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(pid), os.WNOHANG)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    unit = Unit(Path(sys.argv[1]), sys.argv[2:])
    threading.Thread(target=unit.watch, daemon=True).start()
    for line in sys.stdin:
        unit.stop()
        if line.strip() == "restart":
            unit.start()


if __name__ == "__main__":
    main()
