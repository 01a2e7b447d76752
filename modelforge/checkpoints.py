"""The checkpoints of a job: which there are, and which are whole."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.model_files import read_file
from modelforge.projections.models import megabytes
from trainer_entry.wire import CHECKPOINT_MANIFEST, CheckpointManifest

_LONGEST = 64 << 20
"""Of a checkpoint's own notes: the figures of a million steps."""


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A checkpoint on disk. `valid`: every file that its manifest names is there and as long as it says."""

    step: int
    created_at: str
    size_mb: float
    metrics: dict[str, float | None]
    valid: bool
    path: str


class _Log(Struct):
    """The part of the trainer's own state that is read."""

    log_history: list[dict[str, float | int | str | None]] = []


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a job's folder, oldest first; a torn one is listed as not valid."""
    found: list[Checkpoint] = []
    for path in folder.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdigit():
            with contextlib.suppress(FileNotFoundError):  # the trainer is removing it
                found.append(_checkpoint(path, int(step)))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_valid(folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one."""
    whole = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint.valid]
    return whole[-1] if whole else None


def _checkpoint(path: Path, step: int) -> Checkpoint:
    files = [file for file in path.rglob("*") if file.is_file()]
    return Checkpoint(
        step=step,
        created_at=datetime.fromtimestamp(int(path.stat().st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        size_mb=megabytes(sum(file.stat().st_size for file in files)),
        metrics=_metrics(path, step),
        valid=is_whole(path),
        path=str(path),
    )


def is_whole(path: Path) -> bool:
    """Whether every file that its manifest names is there, and as long as it says."""
    try:
        manifest = msgspec.json.decode(read_file(path, CHECKPOINT_MANIFEST, _LONGEST), type=CheckpointManifest)
        return manifest.is_met(lambda name: (path / name).stat().st_size)
    except (OSError, ValueError, RecursionError):
        return False


def _metrics(path: Path, step: int) -> dict[str, float | None]:
    """The figures of the step, as the trainer noted them."""
    try:
        log = msgspec.json.decode(read_file(path, "trainer_state.json", _LONGEST), type=_Log)
    except (OSError, ValueError, RecursionError):
        return {}
    return {
        name: float(value)
        for entry in log.log_history
        if entry.get("step") == step
        for name, value in entry.items()
        if name != "step" and isinstance(value, int | float)
    }
