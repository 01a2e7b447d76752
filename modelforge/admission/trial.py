"""A training tried out before it is started: what its trainer would make of the records, as a preview finds it.

A worker that loads the training libraries takes seconds; so it is asked only where something can be found: where a
chat template has to write more than questions with their answers, where the adapter's layers are chosen, or where the
tokenizer has more tokens than the model.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.admission.context import Admission
from modelforge.admission.estimate.adapters import are_linear
from modelforge.admission.estimate.fit import model_folder
from modelforge.admission.estimate.tokenizer import tokens_beyond
from modelforge.admission.estimate.weights import weights_in
from modelforge.datasets.preview_workers import DEADLINE_SECONDS
from modelforge.errors import BadInput
from modelforge.machine.reading_threads import read_apart
from trainer_entry import wire
from trainer_entry.wire import formats

_SAMPLE = 64
_PEEKED_BYTES = 1 << 20
_OF_TURNS = frozenset({"messages", "conversations"})
_TURNS = ("prompt", "completion", "chosen", "rejected", "history")
"""The fields of other records that may have several turns."""
_ALL_LAYERS = "all-linear"
_OF_RECORDS = ("ChatTemplateFails", "NoChatTemplate")
"""What is said of a model that the hub has: whether that could be asked for the rest, the job will find out."""
_MOST_REMEMBERED = 1000


class _Trial(Struct, frozen=True, gc=False):
    """What a trial was made with: the job's part in it, and the model's small files as they were."""

    job: bytes
    files: tuple[tuple[str, int, int], ...]


class _Refused(Struct, frozen=True, gc=False):
    message: str
    detail: str
    field: str | None


_made: dict[_Trial, _Refused | None] = {}
"""Trials, and how they ended, None for well: not made again while nothing of them changes."""


async def try_out(admission: Admission, spec: wire.JobSpec) -> None:
    """Try out a training, where that can find something.

    Raises:
        BadInput: it would fail, and why.
        TooManyRequests: too many are tried out, or looked at, already.
        TooMuchWork: it took too much time or memory.
    """
    folder = await read_apart(model_folder, spec.model_path)
    if folder is None and spec.model_path == wire.BUILT_IN_MODEL:
        return  # it is built by whoever needs it first, and reads all turns
    if not await read_apart(_finds_something, spec, folder):
        return
    trial = await read_apart(_trial_of, spec, folder)
    if trial not in _made:
        refused = await _make(admission, spec)
        if folder is None and refused is not None and not refused.detail.startswith(_of_records(spec)):
            return
        if len(_made) >= _MOST_REMEMBERED:
            _made.clear()
        _made[trial] = refused
    known = _made[trial]
    if known is not None:
        raise BadInput(known.message, known.detail, field=known.field)


async def _make(admission: Admission, spec: wire.JobSpec) -> _Refused | None:
    request = wire.TrialRequest(job=spec, revision=0, deadline_seconds=DEADLINE_SECONDS, sample=_SAMPLE)
    try:
        await admission.workers.ask(request, "admission")
    except BadInput as error:
        return _Refused(error.message, error.detail, error.field)
    return None


def _of_records(spec: wire.JobSpec) -> tuple[str, ...]:
    """How a refusal begins that is of the records, and not of a hub that could not be asked."""
    return tuple(f"{spec.model_name}: {kind}" for kind in _OF_RECORDS)


def _finds_something(spec: wire.JobSpec, folder: Path | None) -> bool:
    parameters, dataset = spec.parameters, spec.dataset
    if dataset.format in _OF_TURNS or dataset.has_tools:
        return True
    if parameters.use_lora and parameters.target_modules != _ALL_LAYERS and not _has_targets(spec, folder):
        return True
    if parameters.modules_to_save is not None:
        return True
    return _has_turns(dataset) or (folder is not None and tokens_beyond(folder))


def _has_targets(spec: wire.JobSpec, folder: Path | None) -> bool:
    """Whether the names in `target_modules` are plainly those of layers that an adapter can be put on."""
    names = spec.parameters.adapted_layers
    if folder is None or isinstance(names, str):
        return False
    try:
        return are_linear(weights_in(spec.model_name, folder, "model_name"), tuple(names))
    except BadInput:  # the estimate has said so
        return True


def _has_turns(dataset: wire.DatasetFile) -> bool:
    """Whether one of the first records is more than a question and its answer."""
    decoder = msgspec.json.Decoder(formats.FORMATS[dataset.format])
    try:
        with Path(dataset.path).open("rb") as file:
            lines = file.readlines(_PEEKED_BYTES)[:_SAMPLE]
        records = [decoder.decode(line) for line in lines if not line.isspace()]
    except (OSError, ValueError, RecursionError):  # whoever reads all of it says so
        return False
    return any(
        getattr(record, "system", None) or any(isinstance(getattr(record, name, None), list) for name in _TURNS)
        for record in records
    )


def _trial_of(spec: wire.JobSpec, folder: Path | None) -> _Trial:
    files = () if folder is None else tuple(
        (path.name, status.st_size, status.st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.suffix in {".json", ".jinja", ".model", ".txt"} and (status := path.stat())
    )  # fmt: skip
    job = (spec.task, spec.strategy, spec.provider, spec.model_path, spec.dataset.content, spec.dataset.format)
    return _Trial(msgspec.json.encode((job, spec.parameters)), files)
