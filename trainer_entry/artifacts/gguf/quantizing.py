"""llama.cpp's `llama-quantize`, which makes a smaller GGUF file of one whose numbers have 16 or 32 bits."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from trainer_entry.runtime.disk import check_free
from trainer_entry.runtime.failures import QuantizerFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOOK_SECONDS = 0.5
_LAST_BYTES = 1000
_ROOM = 1 << 20
"""With less than this free, it is for want of room that a program fails, whatever it says."""


def quantize(
    program: str, source: Path, target: Path, quantization: str, threads: int, written: Callable[[int], object]
) -> None:
    """Run the program; `written` is told how many bytes of the target are there.

    Raises:
        QuantizerFailed: it is not there, or says that it could not.
        OSError: the disk is full.
    """
    log = source.with_suffix(".log")
    command = [program, _known_to_children(source), _known_to_children(target), quantization.upper(), str(threads)]
    try:
        with log.open("wb") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)  # noqa: S603
    except OSError as error:
        raise QuantizerFailed(f"{program} could not be started: {error.strerror or error}") from error
    while True:
        try:
            code = process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if target.exists():
                written(target.stat().st_size)
            continue
        break
    if code != 0 or not target.is_file():
        check_free(target.parent, _ROOM)
        last = log.read_bytes()[-_LAST_BYTES:].decode(errors="replace").strip()
        raise QuantizerFailed(f"{program} ended with {code} at {quantization}. It said: {last or 'nothing'}")


def _known_to_children(path: Path) -> str:
    """A path through an open folder of this process, by a name that others can follow."""
    text = str(path)
    return f"/proc/{os.getpid()}/{text.removeprefix('/proc/self/')}" if text.startswith("/proc/self/") else text
