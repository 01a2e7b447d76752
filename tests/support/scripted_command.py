"""The command of a scripted trainer: the module by itself, with no launcher of several processes above it."""

import sys
from pathlib import Path

from trainer_entry import wire


def command(_spec: wire.AttemptSpec, module: str, folder: Path, _nodes: int = 1) -> list[str]:
    """As a launcher of this machine asks for one, and as one of a cluster does."""
    return [sys.executable, "-m", module, str(folder)]
