"""Whether a training fits the model, the machine and the disk: every problem found, with what would work."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.admission.estimate import report
from modelforge.admission.estimate.adapter_problems import adapter_problems
from modelforge.admission.estimate.adapters import layer_names, linear_layers, targeted_layers
from modelforge.admission.estimate.architecture import Architecture, architecture_of
from modelforge.admission.estimate.capacity import Capacity, free_disk, memory_capacity
from modelforge.admission.estimate.disk import disk_of
from modelforge.admission.estimate.memory import TRACKER_BYTES, Plan, sizes_of
from modelforge.admission.estimate.obstacles import known_obstacles
from modelforge.admission.estimate.records import Longest, longest_record
from modelforge.admission.estimate.remote_model import built_in, built_in_folder, fetch_remote_model
from modelforge.admission.estimate.report import DiskFit, MemoryFit
from modelforge.admission.estimate.tokenizer import check_chat_template, check_tokenizer
from modelforge.admission.estimate.weights import Weight, weights_in
from modelforge.errors import BadInput, ForgeError
from modelforge.hub import cached_snapshot
from modelforge.machine.reading_threads import read_apart
from modelforge.model_files import read_file
from trainer_entry import wire

_UNKNOWN_LENGTH = 2048
FIELD = "model_name"


class Fit(Struct, frozen=True, kw_only=True, gc=False):
    """What was found. `memory` and `disk` are what the training takes and what there is for it."""

    problems: tuple[BadInput, ...]
    memory: MemoryFit
    disk: DiskFit


class _Model(Struct, kw_only=True, gc=False):
    """What could be read of a model; None: not known."""

    weights: tuple[Weight, ...] | None = None
    architecture: Architecture | None = None


async def estimate_training(
    spec: wire.JobSpec, data_dir: Path, *, waits: bool, spare: int = 0, room: Capacity | None = None
) -> Fit:
    """Read the model, and estimate memory and disk. `waits`: the job may wait until others have given theirs back.

    `spare`: bytes of the machine's memory that come free when it starts. `room`: the memory that there is for it
    elsewhere; 0 bytes in all are not known, and then nothing is compared with them.
    """
    problems: list[BadInput] = []
    folder = await read_apart(model_folder, spec.model_path)
    if folder is not None:
        model = await _read(spec, folder, problems)
    elif spec.model_path == wire.BUILT_IN_MODEL:
        known = built_in()
        model = _Model(weights=known.weights, architecture=known.architecture)
    else:
        remote = await fetch_remote_model(spec.model_path)
        model = _Model() if remote is None else _Model(weights=remote.weights, architecture=remote.architecture)
    problems += known_obstacles(spec, model.architecture, folder)
    problems += _target_problems(spec, model)
    problems += adapter_problems(spec, model.weights or (), model.architecture)
    memory, disk = await asyncio.to_thread(
        _estimate, spec, model, data_dir, problems, waits=waits, spare=spare, elsewhere=room
    )
    return Fit(problems=tuple(problems), memory=memory, disk=disk)


async def host_bytes(spec: wire.JobSpec, data_dir: Path) -> int | None:
    """The machine's memory that a job was estimated to take at its peak, in all its processes; None: not known."""
    if spec.work is not None:
        return None
    try:
        memory = (await estimate_training(spec, data_dir, waits=True)).memory
    except ForgeError:  # it was admitted, and its files or the hub do not answer now
        return None
    if memory.device == "host":  # of all processes and trackers
        return memory.required_bytes
    trackers = sum(TRACKER_BYTES[tracker] for tracker in spec.trackers)
    return memory.process_bytes * spec.parameters.num_processes + trackers


async def unknown_fit(batch_size: int, data_dir: Path, spare: int) -> Fit:
    """What the machine has, for a training of which nothing is known."""
    room = await asyncio.to_thread(memory_capacity, spare=spare)
    free = await asyncio.to_thread(free_disk, data_dir)
    return Fit(problems=(), memory=report.unknown_memory(batch_size, None, room), disk=report.unknown_disk(free))


def model_folder(model_path: str) -> Path | None:
    """Where the model's files are, if they are on this machine."""
    if model_path == wire.BUILT_IN_MODEL:
        folder = built_in_folder()
        return folder if folder.is_dir() else None
    return Path(model_path) if Path(model_path).is_absolute() else cached_snapshot(model_path)


async def _read(spec: wire.JobSpec, folder: Path, problems: list[BadInput]) -> _Model:
    """The model in a folder, and what is wrong with it."""
    model, name = _Model(), spec.model_name

    def read_files() -> None:
        with _gathered(problems):
            model.weights = weights_in(name, folder, FIELD)
        with contextlib.suppress(OSError):  # the check of the model has said so
            model.architecture = architecture_of(read_file(folder, "config.json"))
        has_tools = any(file.has_tools for file in spec.files)
        if has_tools or any(file.format in {"messages", "conversations"} for file in spec.files):
            with _gathered(problems):
                check_chat_template(name, folder, FIELD, tools=has_tools)

    with _gathered(problems):
        await check_tokenizer(name, folder, FIELD)
    await read_apart(read_files)
    return model


@contextlib.contextmanager
def _gathered(problems: list[BadInput]) -> Iterator[None]:
    """Go on after a refusal, and keep it."""
    try:
        yield
    except BadInput as error:
        problems.append(error)


def _target_problems(spec: wire.JobSpec, model: _Model) -> list[BadInput]:
    """Names of layers that the model does not have."""
    parameters, weights = spec.parameters, model.weights
    if not parameters.use_lora or isinstance(parameters.target_modules, str) or not weights:
        return []
    if targeted_layers(weights, parameters.target_modules) or not linear_layers(weights):
        return []
    if any(len(weight.shape) > 2 for weight in weights):  # noqa: PLR2004 - experts in one: files name layers otherwise
        return []
    return [
        BadInput(
            "The model has none of the layers in target_modules",
            f'Its layers are called {", ".join(layer_names(weights)[:20])}; "all-linear" takes them all.',
            field="target_modules",
        )
    ]


def _estimate(
    spec: wire.JobSpec,
    model: _Model,
    data_dir: Path,
    problems: list[BadInput],
    *,
    waits: bool,
    spare: int,
    elsewhere: Capacity | None,
) -> tuple[MemoryFit, DiskFit]:
    room, free = elsewhere or memory_capacity(spare=spare), free_disk(data_dir)
    if waits:
        room = msgspec.structs.replace(room, available=room.total)
    length, answer, about_length = length_of(spec, model.architecture)
    plan = Plan(
        task=spec.task,
        strategy=spec.strategy,
        parameters=_chosen(spec.parameters, room),
        evaluates=spec.evaluates,
        compute_bytes=compute_bytes_of(spec.parameters, room),
        batch_size=spec.parameters.per_device_train_batch_size,
        length=length,
        answer=answer,
        on_gpu=room.device == "gpu",
        judged=spec.has_reward_model,
    )
    if model.weights is None:
        return report.unknown_memory(plan.batch_size, plan.length, room), report.unknown_disk(free)
    sizes = sizes_of(model.weights, spec.parameters)
    memory = report.memory_fit(plan, sizes, model.architecture, room, about_length)
    disk = report.disk_fit(disk_of(plan, sizes, spec.dataset.num_examples), free)
    found = (
        report.memory_problem(plan, model.weights, model.architecture, room, memory) if room.total else None,
        report.disk_problem(disk, plan),
    )
    problems.extend(problem for problem in found if problem is not None)
    return memory, disk


def _chosen(parameters: wire.TrainingParameters, room: Capacity) -> wire.TrainingParameters:
    """As the trainer chooses what was left out and memory depends on."""
    if parameters.gradient_checkpointing is not None:
        return parameters
    return msgspec.structs.replace(parameters, gradient_checkpointing=room.device == "gpu")


def compute_bytes_of(parameters: wire.TrainingParameters, room: Capacity) -> int:
    """As the trainer chooses: 16 bits on a GPU unless both kinds are refused, on the CPU only if asked for."""
    if room.device == "gpu":
        return 4 if parameters.bf16 is False and parameters.fp16 is False else 2
    return 2 if parameters.bf16 or parameters.fp16 or parameters.weight_dtype == "bfloat16" else 4


def length_of(spec: wire.JobSpec, architecture: Architecture | None) -> tuple[int, int | None, str]:
    """The longest sequence of a batch in tokens, that of an answer written apart, and how it is known."""
    asked, context = spec.parameters.max_seq_length, architecture.context if architecture else None
    if asked is None and spec.provider == "unsloth":
        asked = wire.UNSLOTH_LENGTH
    limits = [limit for limit in (asked, context) if limit is not None and limit > 0]
    limit = min(limits) if limits else None
    longest = longest_record(Path(file.path) for file in spec.files)
    if longest is not None and architecture is not None and architecture.encoder_decoder:
        length, answer = (min(filter(None, (limit, tokens))) for tokens in (longest.text, longest.answer))
        words = (
            f"Texts are reckoned at {length} tokens and summaries at {answer}: the longest{_of(longest)} have about "
        )
        return length, answer, f"{words}{longest.text} and {longest.answer}, by their bytes."
    if spec.parameters.packing or longest is None:
        length = limit or _UNKNOWN_LENGTH
        if longest is not None and longest.whole:  # a row has no more than all records together
            length = min(length, longest.together)
        if longest is None and not (asked and asked > 0):
            length = min(length, _UNKNOWN_LENGTH)
        words = f"Sequences are reckoned at {length} tokens."
    else:
        length = min(filter(None, (limit, longest.tokens)))
        words = (
            f"Sequences are reckoned at {length} tokens: the longest record{_of(longest)} has about "
            f"{longest.tokens}, by its bytes."
        )
    if spec.strategy == "rlhf":
        length += spec.parameters.max_completion_length
        length = min(length, context or length)
        words += f" With its completion: {length}."
    return length, None, words


def _of(longest: Longest) -> str:
    return "" if longest.whole else " in the first 16 MB"
