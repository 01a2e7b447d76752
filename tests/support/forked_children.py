"""The processes that a forked server starts are forked too: from the process that it was forked from itself.

That one has imported what they import, or starts one more that imports the libraries of training, as soon as one of
those is asked for. Only what is on the lists below is forked, and only where nothing is handed on but standard
descriptors; all else is started. A forked one is no child of the server's: how it ends is told through a socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelforge.machine.child_environment import child_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

LIGHT = frozenset({"modelforge.datasets.validation", "modelforge.admission.estimate.tokenizer"})
OF_LIGHT = ("modelforge.datasets.validation.pipeline", "tokenizers", "concurrent.futures.process")
HEAVY = frozenset({"trainer_entry.dataset_view", "trainer_entry.infer"})
"""Programs that import the libraries of training."""
LIBRARIES = (
    *("torch", "transformers", "peft", "trl", "trainer_entry.inference.answering", "trainer_entry.preview.sequences"),
    *("trainer_entry.preview.examples", "trainer_entry.preview.preferences", "trainer_entry.preview.render"),
    *("trainer_entry.preview.length_statistics", "trainer_entry.preview.trial"),
)
INHERITED = (resource.RLIMIT_FSIZE, resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
MESSAGE_BYTES = 1 << 16
_start = asyncio.create_subprocess_exec


_first: list[int] = []
"""The process that listens: this one, or the one that it was forked from."""


def listen() -> tuple[socket.socket, socket.socket]:
    """Where forked servers ask this process for what is light, and for what is heavy."""
    _first.append(os.getpid())
    return _listening(_address("light")), _listening(_address("heavy"))


def _address(weight: str) -> str:
    return f"\0modelforge-tests-{_first[0]}-{weight}"


def _listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    return listener


def install() -> None:
    """From now on this process has its children forked, if it was forked itself."""
    if _first:
        asyncio.create_subprocess_exec = _create  # type: ignore[assignment]


async def _create(*command: str, **options: Any) -> ForkedChild | asyncio.subprocess.Process:
    """As asyncio.create_subprocess_exec."""
    if _can_be_forked(command, options):
        child = await _fork(command, **{name: value for name, value in options.items() if name != "pass_fds"})
        if child is not None:
            return child
    return await _start(*command, **options)


def _can_be_forked(command: tuple[str, ...], options: Mapping[str, Any]) -> bool:
    known = {"stdin", "stdout", "stderr", "env", "limit", "start_new_session", "pass_fds"}
    is_ours = command[:2] == (sys.executable, "-m") and command[2] in LIGHT | HEAVY
    return is_ours and not options.get("pass_fds") and options.keys() <= known and "env" in options


async def _fork(
    command: tuple[str, ...],
    *,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int,
    env: Mapping[str, str],
    limit: int = 1 << 16,
    start_new_session: bool = False,
) -> ForkedChild | None:
    """None: it has to be started."""
    request = {"program": command[2], "arguments": command[3:], "environment": dict(env), "folder": str(Path.cwd())}
    mask = os.umask(0o077)
    os.umask(mask)
    limits = {kind: resource.getrlimit(kind) for kind in INHERITED}
    message = json.dumps(request | {"session": start_new_session, "mask": mask, "limits": [*limits.items()]}).encode()
    if len(message) > MESSAGE_BYTES:
        return None
    asks = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours: list[int | None] = []
    theirs: list[int] = []
    for wanted, is_read in ((stdin, True), (stdout, False), (stderr, False)):
        if wanted == PIPE:
            reading, writing = os.pipe()
            ours.append(writing if is_read else reading)
            theirs.append(reading if is_read else writing)
        else:
            ours.append(None)
            is_open = wanted != DEVNULL
            given = wanted if isinstance(wanted, int) else wanted.fileno()
            theirs.append(os.dup(given) if is_open else os.open(os.devnull, os.O_RDWR))
    asks.connect(_address("heavy" if command[2] in HEAVY else "light"))
    asks.settimeout(0)
    socket.send_fds(asks, [message], theirs)
    for descriptor in theirs:
        os.close(descriptor)
    answer = await asyncio.get_running_loop().sock_recv(asks, MESSAGE_BYTES)
    if not answer:
        asks.close()
        for end in ours:
            if end is not None:
                os.close(end)
        return None
    child = ForkedChild(int(answer), asks)
    await child.open(*ours, limit=limit)
    return child


class ForkedChild:
    """What the server uses of asyncio.subprocess.Process."""

    def __init__(self, pid: int, tells: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._ended = asyncio.ensure_future(self._follow(tells))

    async def open(self, stdin: int | None, stdout: int | None, stderr: int | None, *, limit: int) -> None:
        """Take the ends of its pipes."""
        loop = asyncio.get_running_loop()
        if stdin is not None:
            transport, protocol = await loop.connect_write_pipe(
                asyncio.streams.FlowControlMixin, os.fdopen(stdin, "wb", 0)
            )
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        self.stdout = None if stdout is None else await _reader(stdout, limit)
        self.stderr = None if stderr is None else await _reader(stderr, limit)

    async def _follow(self, tells: socket.socket) -> None:
        with tells:
            told = await asyncio.get_running_loop().sock_recv(tells, MESSAGE_BYTES)
        self.returncode = int(told)
        if self.stdin is not None:
            self.stdin.close()

    async def wait(self) -> int:
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, given: bytes | None = None) -> tuple[bytes, bytes]:
        async def write() -> None:
            if self.stdin is not None:
                try:
                    self.stdin.write(given or b"")
                    await self.stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it does not read to the end
                self.stdin.close()

        async def read(stream: asyncio.StreamReader | None) -> bytes:
            return b"" if stream is None else await stream.read()

        _, output, words = await asyncio.gather(write(), read(self.stdout), read(self.stderr))
        await self.wait()
        return output, words

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)

    def terminate(self) -> None:
        self.send_signal(15)


class _Closing(asyncio.StreamReaderProtocol):
    """Of a pipe, which has no use once it is at its end."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


async def _reader(descriptor: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    protocol = _Closing(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb", 0))
    return reader


def start_libraries(listener: socket.socket) -> socket.socket:
    """Start the process that has the libraries of training, and forks who asks there; it ends with what is given."""
    held, holds = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = str(Path(__file__).with_name("warm_process.py"))
    with held:
        subprocess.Popen(
            [sys.executable, "-P", program, str(held.fileno()), f"--served={listener.fileno()}", *LIBRARIES],
            pass_fds=[held.fileno(), listener.fileno()],
            stdin=subprocess.DEVNULL,
            env=child_environment() | {"JE_ARROW_MALLOC_CONF": "background_thread:false"},
        )
    return holds
