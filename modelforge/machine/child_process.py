"""Runs one of our own modules to its end in a process of its own, so that its work is not the event loop's."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import BinaryIO

from msgspec import Struct

from modelforge.machine.child_environment import child_environment
from modelforge.machine.child_limits import UNLIMITED, ChildLimits, limit_process
from modelforge.machine.hub_secrets import handed_secrets


class Ended(Struct, frozen=True, gc=False):
    """How it went. `words`: what it wrote on stderr."""

    code: int
    output: bytes
    words: str


async def run_module(
    module: str,
    *arguments: str,
    stdin: bytes | BinaryIO = b"",
    seconds: float | None = None,
    limits: ChildLimits = UNLIMITED,
    asks_hub: bool = False,
    within: Sequence[str] = (),
) -> Ended:
    """Run `python -m MODULE ARGUMENTS…` on an input, or an open file; it is killed if nobody waits for it any more.

    `asks_hub`: it gets the token of the hub, and the proxies' passwords. `within`: the words of a command that runs it.

    Raises:
        TimeoutError: it did not end within `seconds`, and was killed.
    """
    given = stdin if isinstance(stdin, bytes) else b""
    with handed_secrets(asks_hub=asks_hub) as handed:
        process = await asyncio.create_subprocess_exec(
            *(*within, sys.executable, "-m", module, *arguments),
            stdin=(asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL)
            if isinstance(stdin, bytes)
            else stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(**handed.variables),
            pass_fds=handed.descriptors,
        )
    limit_process(process.pid, limits)
    try:
        async with asyncio.timeout(seconds):
            output, words = await process.communicate(given or None)
    except (asyncio.CancelledError, TimeoutError):
        with contextlib.suppress(ProcessLookupError):  # it had just ended
            process.kill()
        await process.wait()
        raise
    return Ended(await process.wait(), output, words.decode(errors="replace").strip())
