"""A checkpoint on disk: whole once its manifest is there, and older ones removed only after that."""

import os
import shutil
from pathlib import Path

import msgspec

from trainer_entry.runtime.disk import sync_entry, sync_tree
from trainer_entry.wire import CHECKPOINT_MANIFEST, CheckpointManifest

_PREFIX = "checkpoint-"


def seal(folder: Path, step: int) -> None:
    """Bring a checkpoint to the disk, and then say in its manifest what it consists of."""
    sync_tree(folder)
    names = {CHECKPOINT_MANIFEST, f"{CHECKPOINT_MANIFEST}.partial"}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in names]
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    partial = folder / f"{CHECKPOINT_MANIFEST}.partial"
    with partial.open("wb") as file:
        file.write(msgspec.json.encode(CheckpointManifest(step=step, sizes=sizes)))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / CHECKPOINT_MANIFEST)
    sync_entry(folder)


def remove(folder: Path) -> None:
    """Take a checkpoint away, so that one that is half gone is never taken for whole."""
    (folder / CHECKPOINT_MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def prune(newest: Path, limit: int, best: str | None) -> None:
    """Keep `limit` whole checkpoints of a job: the one that was just sealed, the `best` so far, and the latest others.

    Torn ones count for nothing and go too: there is a whole one.
    """
    found = {
        int(path.name.removeprefix(_PREFIX)): path
        for path in newest.parent.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdigit()
    }
    whole = [path for _, path in sorted(found.items()) if is_whole(path)]
    protected = {path for path in whole if path == newest or str(path) == best}
    surplus = max(0, len(whole) - max(limit, len(protected)))
    outdated = [path for path in whole if path not in protected][:surplus]
    for path in [*(path for path in found.values() if path not in whole), *outdated]:
        remove(path)


def is_whole(folder: Path) -> bool:
    """Whether everything that the manifest names is there, and as long as it says."""
    try:
        manifest = msgspec.json.decode((folder / CHECKPOINT_MANIFEST).read_bytes(), type=CheckpointManifest)
        return manifest.is_met(lambda path: (folder / path).stat().st_size)
    except (OSError, msgspec.DecodeError):
        return False
