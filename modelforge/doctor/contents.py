"""What lies in a data directory, against what its log says should lie there."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from modelforge.checkpoints import list_checkpoints
from modelforge.doctor.directory import Server
from modelforge.doctor.finding import Finding, ok, problem, size, warning
from modelforge.domain.state import State
from modelforge.layout import Layout
from modelforge.projections.models import ModelDetails
from modelforge.projections.read_models import ReadModels

_UNDER_WAY_SECONDS = 3600  # the longest upload or removal that is not taken for one that was forgotten


class Listing(Struct, frozen=True, kw_only=True):
    """The names in the folders of a data directory."""

    jobs: frozenset[str]
    models: frozenset[str]
    datasets: frozenset[str]


def listing_of(layout: Layout) -> Listing:
    """What lies there; to be asked for before the log is read, which then knows of it all."""
    return Listing(jobs=_names(layout.jobs), models=_names(layout.models), datasets=_names(layout.datasets))


def _names(folder: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()


def dataset_findings(layout: Layout, listing: Listing, state: State) -> Iterator[Finding]:
    """Whether every dataset's files are there, each with the content that its name says, and no deleted one's."""
    checked: dict[str, str | None] = {}
    for dataset in state.datasets.values():
        for revision in dataset.revisions:
            for name in revision.files:
                path = layout.datasets / name
                if name not in checked:
                    checked[name] = _fault_of(path, listing)
                if (fault := checked[name]) is not None:
                    found = f"{dataset.filename} revision {revision.revision}: {path} {fault}"
                    remedy = f"Upload the same {dataset.filename} again: its bytes go to the same place."
                    yield problem("dataset", found, remedy)
        if dataset.files_kept is not None:
            found = f"{dataset.filename} was deleted, but its files could not be removed: {dataset.files_kept}"
            yield warning("dataset", found, "Put that right, and start the server anew: each start tries again.")
    if not any(checked.values()):
        yield ok("datasets", f"{len(checked)} files, each with the content that it is named for")


def _fault_of(path: Path, listing: Listing) -> str | None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        # One that was there before the log was read was deleted since.
        return None if path.name in listing.datasets else "is missing"
    return None if digest == path.stem else f"has other content: its SHA-256 is {digest}"


def model_findings(layout: Layout, listing: Listing, read_models: ReadModels) -> Iterator[Finding]:
    """Whether every trained model has its weights where the log says."""
    models = read_models.models.values()
    findings = [found for model in models if (found := _model_finding(layout, listing, model)) is not None]
    yield from findings or [ok("models", f"{len(models)}, each with its weights")]


def _model_finding(layout: Layout, listing: Listing, model: ModelDetails) -> Finding | None:
    path, named = Path(model.path), f"model {model.id}, {model.name}: {model.path}"
    remedy = f"Put the folder back from a backup, or take the model off the list: DELETE /api/models/{model.id}"
    if _has_weights(path):
        return None
    if path.is_dir():
        return problem("model", f"{named} has no weights", remedy)
    moved = layout.models / path.name
    if moved.is_dir():
        remedy = f"Move the data directory back, or leave a link to it where it was: ln -s {layout.root} OLD_PLACE"
        return problem("model", f"{named} is missing; the folder is {moved} now", remedy)
    if path.name in listing.models:
        return None  # it was there before the log was read, and deleted since
    return problem("model", f"{named} is missing", remedy)


def _has_weights(folder: Path) -> bool:
    try:
        return any(weights.stat().st_size > 0 for weights in folder.glob("*.safetensors"))
    except FileNotFoundError:
        return False


def checkpoint_findings(layout: Layout, job_ids: list[str]) -> Iterator[Finding]:
    """Whether the checkpoints of jobs that do not train now are whole."""
    whole = torn = 0
    for job_id in job_ids:
        for found in list_checkpoints(layout.checkpoints(job_id)):
            if found.valid:
                whole += 1
                continue
            torn += 1
            remedy = f"No resume begins from it. To free its space: rm -r {found.path}"
            yield warning("checkpoint", f"{found.path} ({size(found.size_mb * 1e6)}) is torn", remedy)
    if not torn:
        yield ok("checkpoints", f"{whole}, each one whole")


def unknown_findings(layout: Layout, listing: Listing, state: State) -> Iterator[Finding]:
    """What the log does not know, and what it says should be gone."""
    kept = {Path(model.path).name: model for model in state.models.values() if not model.files_removed}
    under_way = {name for job_id in state.running for name in (job_id, f"{job_id}.partial")}
    unknown = [layout.jobs / name for name in sorted(listing.jobs - state.jobs.keys())]
    unknown += [layout.models / name for name in sorted(listing.models - kept.keys() - under_way)]
    for path in filter(os.path.lexists, unknown):  # what is gone was removed while the log was read
        remedy = "The server does not use it; remove it if nobody needs it."
        yield warning("unknown", f"{path} is not in the log", remedy)
    for name, model in kept.items():
        if model.files_kept is not None and name in listing.models:
            found = f"model {model.model_id} was deleted, but its files could not be removed: {model.files_kept}"
            yield warning("model", found, "Put that right, and start the server anew: each start tries again.")


def leftover_findings(layout: Layout, listing: Listing, state: State, server: Server | None) -> Iterator[Finding]:
    """What a crash left half done: the next start takes it away."""
    unknown = listing.datasets - state.known_files()
    uploads = [layout.datasets / name for name in unknown if name.endswith((".jsonl", ".upload"))]
    left = [*_entries(layout.temporary), *_entries(layout.trash), *uploads]
    left += _entries(layout.standby) if server is None else []  # a server that runs has a trainer there
    if server is None:
        swept = ": the next start sweeps them away" if left else ""
        yield ok("leftovers", f"{len(left)} of uploads and removals{swept}")
        return
    old = [path for path in left if (age := _age(path)) is not None and age > _UNDER_WAY_SECONDS]
    for path in sorted(old):
        found = f"{path} is older than an hour, and no upload or removal takes so long"
        yield warning("leftover", found, "Start the server anew: each start sweeps it away, and trainers go on.")
    if not old:
        yield ok("leftovers", f"{len(left)} of uploads and removals, under way")


def _entries(folder: Path) -> list[Path]:
    return [*folder.iterdir()] if folder.is_dir() else []


def _age(path: Path) -> float | None:
    """Seconds since it was changed; None if it is gone."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return None
