"""What a child process may take: it is held to it by the system, whatever it runs."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from modelforge.machine.child_limits import UNLIMITED, ChildLimits, limit_process
from modelforge.machine.disk_space import check_room, reserve_on

EATS = "import sys; sys.stdin.read(); eaten = bytearray(200 << 20); print(len(eaten))"
WRITES = "import sys; sys.stdin.read(); open(sys.argv[1], 'wb').write(bytes(2 << 20))"


async def run(program: str, limits: ChildLimits, *arguments: str) -> tuple[int | None, str]:
    """A program that begins once it is limited."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    limit_process(process.pid, limits)
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
    _, words = await process.communicate(b"")
    return process.returncode, words.decode()


async def test_memory_is_limited() -> None:
    assert (await run(EATS, UNLIMITED))[0] == 0
    code, words = await run(EATS, ChildLimits(memory_bytes=100 << 20))
    assert (code, "MemoryError" in words) == (1, True)


async def test_the_length_of_a_file_is_limited(tmp_path: Path) -> None:
    code, words = await run(WRITES, ChildLimits(file_bytes=1 << 20), str(tmp_path / "file"))
    assert (code, "File too large" in words) == (1, True)
    assert (tmp_path / "file").stat().st_size <= 1 << 20


async def test_a_process_that_has_ended_needs_no_limits() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    limit_process(process.pid, ChildLimits(memory_bytes=1))


def test_a_small_disk_keeps_a_twentieth_free(tmp_path: Path) -> None:
    assert reserve_on(tmp_path, 1) == 1
    assert reserve_on(tmp_path, 1 << 62) * 20 <= 1 << 62
    check_room(tmp_path, 0, 1 << 62)  # nobody asks for room to be kept
    with pytest.raises(OSError, match="No space left"):
        check_room(tmp_path, 1, 1 << 62)
