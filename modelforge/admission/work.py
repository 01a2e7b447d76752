"""Work on a trained model: its place or repository checked, and turned into the spec of a job."""

import asyncio
import os
from pathlib import Path
from typing import assert_never

import msgspec
from huggingface_hub import constants
from msgspec import Struct

from modelforge.admission.context import Admission
from modelforge.admission.gguf import admit_gguf
from modelforge.domain import model
from modelforge.errors import BadInput, Conflict
from modelforge.fields import check_label
from modelforge.hub import hub_token
from modelforge.layout import Layout
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.settings import Settings
from trainer_entry import wire

_LONGEST_JOB_ID = f"train_{2**63 - 1}"
_INSIDE = len("/copy//")
"""What is added to a path for a file of the model in it, beside the file's own name."""


class ExportPlace(Struct, frozen=True):
    """Where an export goes, and the folder that it stays in. `to`: None for the data directory's own folder."""

    to: str | None
    root: str


def work_spec(
    admission: Admission,
    source: model.ModelRegistered,
    work: wire.Merge | wire.Export | wire.Push | wire.Evaluate,
    output_name: str,
) -> wire.JobSpec:
    """The job that does some work: it describes the source's training, with the parameters in effect there."""
    check_trainer_libraries()
    made_by, layout = source.spec, admission.layout
    return wire.JobSpec(
        job_id="",
        task=made_by.task,
        strategy=made_by.strategy,
        provider=made_by.provider,
        model_name=made_by.model_name,
        model_path=made_by.model_path,
        dataset=made_by.dataset,
        parameters=source.parameters,
        output_name=output_name,
        output_dir=str(layout.exports if isinstance(work, wire.Export) else layout.models),
        checkpoint_dir=str(layout.jobs),
        grace_seconds=admission.settings.stop_grace_seconds,
        work=work,
        lineage=_lineage_of(source) if isinstance(work, wire.Merge) else (),
    )


def _lineage_of(source: model.ModelRegistered) -> tuple[wire.Ancestor, ...]:
    """The model that is merged, and those that it comes of."""
    made_by = source.spec
    merged = wire.Ancestor(
        model_id=source.model_id, name=source.name, job_id=made_by.job_id, base_model=made_by.model_name
    )
    return (merged, *made_by.lineage)


async def readmit_work(admission: Admission, spec: wire.JobSpec) -> wire.JobSpec:
    """Work that was done once as it can be done now; whether its model is still there, the writer looks up.

    Raises:
        BadInput, Conflict: the place of an export is taken or not allowed, or the hub cannot be asked.
        StorageFull: there is no room for an export as GGUF.
    """
    layout = admission.layout
    root = layout.models
    match spec.work:
        case wire.Export(to=to) as work:
            root = layout.exports
            place = await resolve_export_place(admission, to)
            work = await admit_gguf(admission.settings, spec, msgspec.structs.replace(work, root=place.root))
            spec = msgspec.structs.replace(spec, work=work)
        case wire.Push():
            await check_hub_access()
        case wire.Merge() | wire.Evaluate() | None:
            pass
        case _:
            assert_never(spec.work)
    return msgspec.structs.replace(
        spec,
        output_dir=str(root),
        checkpoint_dir=str(layout.jobs),
        grace_seconds=admission.settings.stop_grace_seconds,
    )


async def resolve_export_place(admission: Admission, name: str | None) -> ExportPlace:
    """The place for an export, resolved: free, in a folder that is there, under a root, and not among our own files.

    Raises:
        BadInput, Conflict: it cannot go there; the message says why.
    """
    if name is None:
        return ExportPlace(None, str(admission.layout.root))
    return await asyncio.to_thread(_export_place, name, admission.settings, admission.layout)


def _export_place(name: str, settings: Settings, layout: Layout) -> ExportPlace:
    check_label(name, "path")
    try:
        path = Path(name)
        is_absolute, path = path.is_absolute(), path.resolve()
        is_taken, has_folder = os.path.lexists(path), path.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The path cannot be used", f"{name}: {error}", field="path") from error
    if not is_absolute:
        raise BadInput("The path is not absolute", f"{name}: begin it with a slash.", field="path")
    roots = (*settings.model_roots, layout.exports)
    own = (layout.root.resolve(), layout.at_nodes().resolve())
    is_ours = any(path.is_relative_to(one) for one in own) and not path.is_relative_to(layout.exports)
    around = [root for root in roots if path.is_relative_to(root)]
    if is_ours or path in roots or not around:
        raise BadInput(
            "The path lies outside the model roots",
            f"{name} is in none of {', '.join(map(str, roots))}, or among the server's own files; "
            "start the server with --model-root to allow its folder.",
            field="path",
        )
    if is_taken:
        raise Conflict("There is something at the path already", f"{name}: take it away, or send another path.")
    if not has_folder:
        raise BadInput("The path's folder is not there", f"Make {path.parent} first.", field="path")
    _check_length(path)
    return ExportPlace(str(path), str(max(around, key=lambda root: len(root.parts))))


def _check_length(path: Path) -> None:
    """Refuse a place whose name, or path, leaves no room for what an export has beside its place until it is whole.

    Raises:
        BadInput: it says how long it may be.
    """
    longest_name, longest_path = _limit(path.parent, "PC_NAME_MAX", 255), _limit(path.parent, "PC_PATH_MAX", 4096)
    added = len(wire.partial_export("", _LONGEST_JOB_ID))
    name, whole = len(os.fsencode(path.name)), len(os.fsencode(path))
    if name + added > longest_name or whole + added + longest_name + _INSIDE > longest_path:
        raise BadInput(
            "The path is too long",
            f"Its last part has {name} bytes, and {longest_name - added} is the most here; all of it has {whole}, and "
            f"{longest_path - longest_name - added - _INSIDE} is the most.",
            field="path",
        )


def _limit(folder: Path, name: str, usual: int) -> int:
    """What a disk says of its names; some have no limit, or none to tell, and other disks have the usual one."""
    try:
        limit = os.pathconf(folder, name)
    except OSError:
        return usual
    return limit if limit > 0 else usual


async def check_hub_access() -> None:
    """Refuse a push that could only fail.

    Raises:
        Conflict: the server may not ask the hub, or has no token for it.
    """
    if constants.HF_HUB_OFFLINE:
        raise Conflict("The hub may not be asked", "The server was started with HF_HUB_OFFLINE: start it without.")
    if await asyncio.to_thread(hub_token) is None:
        raise Conflict(
            "The server has no token for the hub",
            "Start it with HF_TOKEN set to one that may write, or log in once with `hf auth login`.",
        )
