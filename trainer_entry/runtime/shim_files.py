"""What a shim writes into an attempt's folder, and reads from its log. Standard library only."""

import json
import os
import re
from pathlib import Path

_TAIL_BYTES = 16_384
_RANK_SIGNAL = re.compile(rb"died with <Signals\.\w+: (\d+)>|exitcode\s*: -(\d+)")


def write_whole(path: Path, record: dict[str, str | int | float | bool | None]) -> None:
    """Write a file that is there whole or not at all, also after a power loss."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def signal_told(path: Path) -> int | None:
    """The signal that a rank died by, as a log has it: accelerate and torchrun end with 1, whatever it was."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        matches = list(_RANK_SIGNAL.finditer(file.read()))
    return int(matches[-1][1] or matches[-1][2]) if matches else None
