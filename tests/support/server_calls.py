"""`strace` as the torture's hand: it shows which calls a server makes, and kills it at one of them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from support.served import POOL_THREAD

# A question mark: an architecture may lack the call.
CHANGES = ",".join(
    f"?{name}"
    for name in (
        *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice"),
        *("open", "openat", "openat2", "creat", "ftruncate", "truncate", "fallocate", "fsync", "fdatasync", "sync"),
        *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
        *("mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "flock"),
        *("sendto", "sendmsg", "sendmmsg", "shutdown", "bind", "listen", "connect", "io_uring_enter"),
        *("kill", "tkill", "tgkill", "pidfd_send_signal", "clone", "clone3", "fork", "vfork", "execve", "execveat"),
    )
)
THREADS = ("main", POOL_THREAD, "log")
_ONLY_INSIDE = re.compile(r'openat\((?!.*O_CREAT)|write\(\d+, "\\1\\0\\0\\0\\0\\0\\0\\0", 8')
_CALL = re.compile(r"(?:(\d+) +)?(\w+)\(")


@dataclass(frozen=True)
class Point:
    """Where a kill comes: at a thread's N-th call of a name. `attached`: before the trial the thread was there."""

    thread: str
    name: str
    number: int
    attached: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.number} of the {self.thread} thread"


class SeenCall(NamedTuple):
    """A call as strace shows it. `task`: the thread, where more than one was followed."""

    task: int | None
    name: str
    line: str

    @property
    def is_seen_outside(self) -> bool:
        """Whether it does more than open a file for reading, or wake a thread."""
        return _ONLY_INSIDE.search(self.line) is None


def thread_ids(pid: int) -> dict[int, str]:
    """The server's threads, by what they are; libuv's workers are none of ours."""
    names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    others = {task: "log" for task, name in names.items() if name.startswith("python")}
    return {**others, **{task: POOL_THREAD for task, name in names.items() if name == POOL_THREAD}, pid: "main"}


class Strace:
    """Follows a server: one thread of it, or all, and kills it at a point if one is given."""

    def __init__(self, pid: int, log: Path, point: Point | None) -> None:
        self._log = log
        threads = {name: task for task, name in thread_ids(pid).items()}
        target = ["-p", str(threads[point.thread])] if point and point.attached else ["-f", "-p", str(pid)]
        inject = ["-e", f"inject={point.name}:signal=SIGKILL:when={point.number}"] if point else []
        self._process = subprocess.Popen(
            ["strace", *target, "-o", str(log), "-e", f"trace={CHANGES}", *inject],  # noqa: S607 - as it is installed
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert "attached" in line, line + self._process.stderr.read()

    def end(self) -> list[SeenCall]:
        """Let go; what it saw."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate()
        lines = (found for found in map(_CALL.match, self._log.read_text().splitlines()) if found)
        return [SeenCall(int(line[1]) if line[1] else None, line[2], line.string) for line in lines]
