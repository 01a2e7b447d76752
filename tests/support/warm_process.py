"""A process that has imported a program's libraries once, and forks one process for each run of it.

    python support/warm_process.py DESCRIPTOR MODULE...

A forked program runs as `python -m PROGRAM` does: as `__main__`, with the arguments, environment, folder and
descriptors that it is given, and as a child of the process that asked for it. Nothing is computed before a fork and no
thread runs, so that it is what a started process is after the same imports; only its command line and environment in
/proc, and the seed of the hashes, are those of the warm process. So it is not for tests of launching, or of what is
done before or while the libraries are imported. What a forked server starts is forked too (support.forked_children).
With TESTS_COLD=1 in the environment of the tests, or of one server, nothing is forked.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MESSAGE_BYTES = 1 << 16
_POLL_SECONDS = 0.005
_PR_SET_CHILD_SUBREAPER = 36
_READ_WHEN_NEEDED = ("MODELFORGE_", "PYTEST_", "TORCHINDUCTOR_")
"""Variables that begin so do not change what an import does; torch sets the last in a process of tests that uses it."""

_READ_BY_LIBRARIES = ("PYTHONPATH", "HF_", "TRANSFORMERS_", "TORCH_", "CUDA_", "OMP_", "BNB_", "TRITON_")
"""Those that change what an import of the libraries of training does, of what a server hands on."""
_SERVED = "--served="


class ForkedProcess:
    """What the tests use of `subprocess.Popen`, for a process that a warm one has forked."""

    def __init__(self, pid: int, program: str) -> None:
        self.pid = pid
        self.args = program
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self.returncode is None:  # as subprocess.Popen says it
            warnings.warn(f"process {self.pid} is still running", ResourceWarning, stacklevel=2, source=self)


Process: TypeAlias = "subprocess.Popen[bytes] | ForkedProcess"


def start_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    warm: Callable[[], WarmProcess] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int,
    stderr: int,
) -> Process:
    """Run `python -m PROGRAM ...`: forked from the warm process, if there is one and it suits; else started."""
    if warm is not None and "TESTS_COLD" not in os.environ and warm().suits(environment):
        assert command[:2] == [sys.executable, "-m"], command
        return warm().fork(command[2], command[3:], environment, stdin=stdin, stdout=stdout, stderr=stderr)
    return subprocess.Popen(command, env=dict(environment), stdin=stdin, stdout=stdout, stderr=stderr)


class WarmProcess:
    """The asking end: it starts the warm process, and asks it for forks."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], **before_imports: str) -> None:
        self._environment = _lasting(environment)
        self._asks, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answers:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(answers.fileno()), *modules],
                pass_fds=[answers.fileno()],
                stdin=subprocess.DEVNULL,
                env={**environment, **before_imports},
            )
        atexit.register(self._end)
        if self._asks.recv(_MESSAGE_BYTES) != b"warm":
            raise RuntimeError(f"The modules {modules} could not be imported, or left a thread behind.")

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether its libraries were imported with these variables."""
        return _lasting(environment) == self._environment

    def fork(
        self,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> ForkedProcess:
        """Run a program in a fork, on these descriptors."""
        request = {"program": program, "arguments": list(arguments), "environment": dict(environment)}
        message = json.dumps(request | {"folder": str(Path.cwd()), "parent": os.getpid()}).encode()
        with contextlib.ExitStack() as opened:
            if stdin == subprocess.DEVNULL:
                stdin = os.open(os.devnull, os.O_RDONLY)
                opened.callback(os.close, stdin)
            opened.callback(_adopt_orphans, adopts=False)
            _adopt_orphans(adopts=True)
            socket.send_fds(self._asks, [message], [stdin, stdout, stderr])
            answer = self._asks.recv(_MESSAGE_BYTES)
        if not answer:
            raise RuntimeError("The warm process has ended.")
        return ForkedProcess(int(answer), program)

    def _end(self) -> None:
        self._asks.close()
        self._process.wait()


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_READ_WHEN_NEEDED)}


def _adopt_orphans(*, adopts: bool) -> None:
    """While it does, a process whose parent ends becomes a child of this one, and not of the system's first."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopts), 0, 0, 0):
        raise OSError("prctl failed")


# ---- the process itself ----


def main() -> None:
    """Import, and fork until nobody is there to ask."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    asked.set_inheritable(False)
    gc.disable()  # what is imported stays
    served, modules = None, sys.argv[2:]
    if modules[0].startswith(_SERVED):
        served = socket.socket(fileno=int(modules.pop(0).removeprefix(_SERVED)))
        served.set_inheritable(False)
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a child's collections leave the shared pages alone
    gc.enable()
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - their numbers
        raise SystemExit("A process with threads cannot be forked.")
    asked.send(b"warm")
    _answer(asked, served)


def _answer(asked: socket.socket, served: socket.socket | None) -> None:
    """Fork for the one who started this process, and for servers that were forked from it."""
    heavy = None
    if (children := sys.modules.get("support.forked_children")) and served is None:
        served, heavy = children.listen()
    reads = ("PYTHONPATH",) if children is not None else _READ_BY_LIBRARIES
    kept = {one for one in (asked, served, heavy) if one is not None}  # what no fork has a use for
    while True:
        readable, _, _ = select.select([one for one in (asked, served, heavy) if one is not None], [], [])
        if children is not None and heavy is not None and heavy in readable:
            kept.add(children.start_libraries(heavy))
            kept.remove(heavy)
            heavy.close()
            heavy = None
        elif asked in readable:
            message, descriptors = _received(asked)
            if not message:
                break
            asked.send(str(_fork(kept, json.loads(message), descriptors)).encode())
            _close(descriptors)
        elif served is not None:
            asks, _ = served.accept()
            with asks:
                message, descriptors = _received(asks)
                request = json.loads(message)
                if _of(request["environment"], reads) == _of(os.environ, reads):
                    _fork_told(kept, asks, request, descriptors)
                _close(descriptors)
    for one in kept:
        one.close()


def _received(asked: socket.socket) -> tuple[bytes, list[int]]:
    message, ancillary, _, _ = asked.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    descriptors = array.array("i")
    for _level, _type, data in ancillary:
        descriptors.frombytes(data)
    return message, list(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _fork_told(kept: set[socket.socket], asks: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """Fork a program for one who is not its parent: he is told its pid, and then how it ended."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    if os.fork():
        os._exit(0)
    for one in kept:
        one.close()
    os.umask(request["mask"])
    for kind, limit in request["limits"]:
        resource.setrlimit(kind, tuple(limit))
    if not (pid := os.fork()):
        _run({asks}, request, descriptors)
    _close(descriptors)
    asks.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # a server that was killed
        asks.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _of(environment: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(prefixes)}


def _fork(kept: set[socket.socket], request: dict[str, Any], descriptors: list[int]) -> int:
    """The pid of a process that the asking one is the parent of."""
    reading, writing = os.pipe()
    between = os.fork()
    if not between:
        pid = os.fork()
        if not pid:
            os.close(reading)
            os.close(writing)
            _run(kept, request, descriptors)
        os.write(writing, str(pid).encode())
        os._exit(0)  # now it is an orphan, and is adopted by the process that asked
    os.close(writing)
    os.waitpid(between, 0)
    with os.fdopen(reading) as answer:
        return int(answer.read())


def _run(kept: set[socket.socket], request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be what `python -m PROGRAM` is."""
    for one in kept:
        one.close()
    while os.getppid() != request.get("parent", os.getppid()):
        time.sleep(_POLL_SECONDS)
    if request.get("session"):
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if numpy := sys.modules.get("numpy"):  # the libraries draw from it, and no two processes begin with the same state
        numpy.random.seed()
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    if children := sys.modules.get("support.forked_children"):
        children.install()
    sys.argv = [request["program"], *request["arguments"]]
    sys.modules.pop(request["program"], None)  # it is run anew
    runpy.run_module(request["program"], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
