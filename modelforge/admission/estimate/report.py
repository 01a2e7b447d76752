"""The estimates beside what there is: as they are answered, and the refusals that come of them."""

from typing import Literal

import msgspec
from msgspec import Struct

from modelforge.admission.estimate.architecture import Architecture
from modelforge.admission.estimate.capacity import Capacity
from modelforge.admission.estimate.disk import Disk
from modelforge.admission.estimate.memory import (
    PROCESS_BYTES,
    Plan,
    Sizes,
    largest,
    memory_of,
    sizes_of,
)
from modelforge.admission.estimate.weights import Weight
from modelforge.errors import BadInput

_NEARLY_FULL = 0.8
RECKONED_TOO_HIGH = 1.25
"""How far an estimate may lie over what is available without a refusal: by so much some were too high."""
_LARGEST_BATCH = 4096
_LONGEST = 1 << 20
_FEWEST_TOKENS = 32  # shorter sequences teach nothing
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class MemoryFit(Struct, frozen=True, kw_only=True, gc=False):
    """Bytes that a training takes at its peak, in each of its processes, and that one GPU or the machine has.

    Null: not known. `largest_batch_size`, `largest_sequence_length`: what would fit, the other settings as they are;
    null also where nothing fits. `tracker_bytes`: of all trackers together, whose processes stand beside it.
    """

    device: Literal["gpu", "host"]
    available_bytes: int
    total_bytes: int
    batch_size: int
    sequence_length: int | None
    note: str
    required_bytes: int | None = None
    weights_bytes: int | None = None
    gradients_bytes: int | None = None
    optimizer_bytes: int | None = None
    activations_bytes: int | None = None
    process_bytes: int = PROCESS_BYTES
    tracker_bytes: int = 0
    largest_batch_size: int | None = None
    largest_sequence_length: int | None = None


class DiskFit(Struct, frozen=True, kw_only=True, gc=False):
    """Bytes that a training writes, and that are free. Null: not known. `checkpoints`: the most at one time."""

    available_bytes: int
    required_bytes: int | None = None
    checkpoint_bytes: int | None = None
    checkpoints: int | None = None
    model_bytes: int | None = None


def unknown_memory(batch_size: int, length: int | None, room: Capacity) -> MemoryFit:
    """The answer where nothing is known of the model's size."""
    return MemoryFit(
        device=room.device,
        available_bytes=room.available,
        total_bytes=room.total,
        batch_size=batch_size,
        sequence_length=length,
        note="Not known: the sizes of the model's weights could not be read.",
    )


def unknown_disk(free: int) -> DiskFit:
    """The answer where nothing is known of the model's size."""
    return DiskFit(available_bytes=free)


def memory_fit(
    plan: Plan, sizes: Sizes, architecture: Architecture | None, room: Capacity, about_length: str
) -> MemoryFit:
    """What the training takes beside what there is."""
    counted = memory_of(plan, sizes, None)
    known = MemoryFit(
        device=room.device,
        available_bytes=room.available,
        total_bytes=room.total,
        batch_size=plan.batch_size,
        sequence_length=plan.length,
        weights_bytes=counted.weights,
        gradients_bytes=counted.gradients,
        optimizer_bytes=counted.optimizer,
        tracker_bytes=plan.tracker_bytes,
        note="Activations are not known: config.json does not have the model's sizes.",
    )
    if architecture is None:
        return known
    memory, each = memory_of(plan, sizes, architecture), _each(plan, room)
    notes = [about_length]
    if _NEARLY_FULL * each < memory.total <= RECKONED_TOO_HIGH * each:
        notes.append("This is near to all that is available; it may not be enough.")
    longest = architecture.context or _LONGEST
    return msgspec.structs.replace(
        known,
        required_bytes=memory.total * _sharers(plan, room) + plan.tracker_bytes,
        weights_bytes=memory.weights,
        activations_bytes=memory.activations,
        largest_batch_size=largest(plan, sizes, architecture, "batch_size", _LARGEST_BATCH, each),
        largest_sequence_length=largest(plan, sizes, architecture, "length", longest, each),
        note=" ".join(notes),
    )


def disk_fit(disk: Disk, free: int) -> DiskFit:
    """What the training writes beside what is free."""
    return DiskFit(
        available_bytes=free,
        required_bytes=disk.total,
        checkpoint_bytes=disk.checkpoint,
        checkpoints=disk.checkpoints,
        model_bytes=disk.model,
    )


def memory_problem(
    plan: Plan, weights: tuple[Weight, ...], architecture: Architecture | None, room: Capacity, fit: MemoryFit
) -> BadInput | None:
    """The refusal of a training that takes more than there is, with the largest setting that would fit."""
    # Weights and what is kept for each of them are counted; activations are reckoned, and sometimes less.
    parts = (fit.weights_bytes or 0) + (fit.gradients_bytes or 0) + (fit.optimizer_bytes or 0) + PROCESS_BYTES
    counted = parts * _sharers(plan, room) + plan.tracker_bytes
    least = counted if fit.required_bytes is None else fit.required_bytes
    if counted <= room.available and least <= RECKONED_TOO_HIGH * room.available:
        return None
    place = "the GPU" if room.device == "gpu" else "this machine"
    available = size_in_words(room.available)
    message = f"The training needs about {size_in_words(least)} of memory, and {place} has {available} available"
    if fit.largest_batch_size is not None:
        accumulation = -(-plan.batch_size * plan.parameters.gradient_accumulation_steps // fit.largest_batch_size)
        remedy = (
            f'The largest that fits is "per_device_train_batch_size": {fit.largest_batch_size}; with '
            f'"gradient_accumulation_steps": {accumulation} it learns from as many records a step.'
        )
        return BadInput(
            message, remedy + _others(plan, weights, architecture, room), field="per_device_train_batch_size"
        )
    one = msgspec.structs.replace(plan, batch_size=1)
    length = None
    if architecture is not None:
        each = _each(plan, room)
        length = largest(one, sizes_of(weights, plan.parameters), architecture, "length", plan.length, each)
    if length is not None and length >= _FEWEST_TOKENS:
        remedy = f'The largest that fits is "max_seq_length": {length} with "per_device_train_batch_size": 1.'
        return BadInput(message, remedy + _others(plan, weights, architecture, room), field="max_seq_length")
    others = _others(plan, weights, architecture, room)
    remedy = f"No batch size or sequence length fits.{others}" if others else "Name a smaller model."
    return BadInput(message, remedy, field="model_name")


def _others(plan: Plan, weights: tuple[Weight, ...], architecture: Architecture | None, room: Capacity) -> str:
    """What else would make it fit, at the same length and in the worst case one record at a time."""
    if architecture is None:
        return ""
    ways: list[str] = []
    for words, changed in _cheaper(plan):
        sizes = sizes_of(weights, changed.parameters)
        each = _each(plan, room)
        if (size := largest(changed, sizes, architecture, "batch_size", plan.batch_size, each)) is not None:
            ways.append(f'{words} fits at "per_device_train_batch_size": {size}')
    return f" {'; '.join(ways)}." if ways else ""


def _cheaper(plan: Plan) -> list[tuple[str, Plan]]:
    """The same training with less memory, least change first."""
    ways: list[tuple[str, Plan]] = []
    parameters = plan.parameters
    if not parameters.gradient_checkpointing:
        changed = msgspec.structs.replace(parameters, gradient_checkpointing=True)
        ways.append(('"gradient_checkpointing": true', msgspec.structs.replace(plan, parameters=changed)))
    if not parameters.use_lora:
        changed = msgspec.structs.replace(parameters, use_lora=True, weight_dtype=None)
        ways.append(('"use_lora": true', msgspec.structs.replace(plan, parameters=changed)))
        changed = msgspec.structs.replace(parameters, weight_dtype="bfloat16", optim="adamw_8bit")
        words = '"weight_dtype": "bfloat16" with "optim": "adamw_8bit"'
        ways.append((words, msgspec.structs.replace(plan, parameters=changed, compute_bytes=2)))
    if plan.strategy == "sft":
        changed = msgspec.structs.replace(parameters, use_lora=True, weight_dtype=None)
        ways.append(('"strategy": "qlora"', msgspec.structs.replace(plan, strategy="qlora", parameters=changed)))
    elif parameters.use_lora and plan.bits != 4:  # noqa: PLR2004 - bits
        changed = msgspec.structs.replace(parameters, use_4bit=True, use_8bit=False)
        ways.append(('"use_4bit": true', msgspec.structs.replace(plan, parameters=changed)))
    return ways


def disk_problem(fit: DiskFit, plan: Plan) -> BadInput | None:
    """The refusal of a training that writes more than is free."""
    required, checkpoint, model = fit.required_bytes or 0, fit.checkpoint_bytes or 0, fit.model_bytes or 0
    if required <= fit.available_bytes:
        return None
    free = size_in_words(fit.available_bytes)
    message = f"The training writes about {size_in_words(required)}, and the data directory has {free} free"
    # One more is on the disk while the next is written.
    fits = (fit.available_bytes - model) // checkpoint - 1
    if fits >= 1:
        remedy = f'Free some space, or send "save_total_limit": {fits}.'
        return BadInput(message, remedy, field="save_total_limit")
    use = "" if plan.parameters.use_lora else ' or send "use_lora": true, which saves an adapter only'
    return BadInput(
        message,
        f"Free {size_in_words(required - fit.available_bytes)},{use or ' or name a smaller model'}.",
        field="model_name",
    )


def _sharers(plan: Plan, room: Capacity) -> int:
    """The processes of a node, which share its memory: each has a GPU of its own, where there are any."""
    return max(1, plan.parameters.num_processes // room.nodes) if room.device == "host" else 1


def _each(plan: Plan, room: Capacity) -> int:
    """What each of them may have, beside the trackers."""
    return max(0, room.available - plan.tracker_bytes) // _sharers(plan, room)


def size_in_words(size: float) -> str:
    """Bytes for a person."""
    unit, name = next((pair for pair in _UNITS if size >= pair[0]), _UNITS[-1])
    return f"{size / unit:,.1f} {name}"
