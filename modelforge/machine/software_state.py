"""Whether the programs on the disk are still those that a process of ours was started from."""

import hashlib
import os
import sys
from pathlib import Path

from trainer_entry import wire


def software_state() -> str:
    """A name for the interpreter, our own code and the installed packages as they are now; another once they change."""
    digest = hashlib.sha256(sys.executable.encode())
    ours = Path(wire.__file__ or "").parents[1]
    for path in sorted(ours.rglob("*.py")):
        digest.update(_mark(path))
    for folder in sys.path:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # an archive, or a folder that is not there
            continue
        for entry in entries:
            if entry.name.endswith((".dist-info", ".egg-info", ".pth")):
                digest.update(_mark(Path(entry.path)))
    return digest.hexdigest()


def _mark(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError:  # removed at this moment
        return str(path).encode()
    return f"{path} {status.st_mtime_ns} {status.st_size} {status.st_ino}".encode()
