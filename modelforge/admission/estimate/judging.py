"""The memory of an evaluation, which makes no step: no gradients, nothing of an optimizer, and its own logits."""

import asyncio
import contextlib

import msgspec

from modelforge.admission.estimate.architecture import Architecture, architecture_of
from modelforge.admission.estimate.capacity import Capacity, memory_capacity
from modelforge.admission.estimate.fit import compute_bytes_of, length_of, model_folder
from modelforge.admission.estimate.memory import PROCESS_BYTES, Plan, Sizes, evaluation_bytes, sizes_of, weights_bytes
from modelforge.admission.estimate.remote_model import built_in
from modelforge.admission.estimate.report import RECKONED_TOO_HIGH, size_in_words
from modelforge.admission.estimate.weights import Weight, weights_in
from modelforge.errors import BadInput
from modelforge.machine.reading_threads import read_apart
from modelforge.model_files import read_file
from trainer_entry import wire

_FIELD = "model_id"


async def check_evaluation_fits(
    job: wire.JobSpec, *, waits: bool, spare: int = 0, elsewhere: Capacity | None = None
) -> None:
    """Refuse an evaluation for which there is not the memory; one of a model whose files cannot be read is let be.

    `job`: the evaluation as a training on its own records. `waits`: it may wait until others have given theirs back.
    `spare`: bytes that come free when it starts. `elsewhere`: what a node has, where it runs on a cluster; 0 bytes
    in all are not known.

    Raises:
        BadInput: there is too little; it says how many records at a time fit.
    """
    if elsewhere is not None and not elsewhere.total:
        return
    weights, architecture = await read_apart(lambda: _read(job))
    if weights is None or architecture is None:
        return
    room = await asyncio.to_thread(memory_capacity, spare=spare) if elsewhere is None else elsewhere
    if waits:
        room = msgspec.structs.replace(room, available=room.total)
    length, answer, _ = await asyncio.to_thread(length_of, job, architecture)
    plan = Plan(
        task=job.task,
        strategy=job.strategy,
        parameters=job.parameters,
        evaluates=True,
        compute_bytes=compute_bytes_of(job.parameters, room),
        batch_size=job.parameters.per_device_train_batch_size,
        length=length,
        answer=answer,
        on_gpu=room.device == "gpu",
    )
    problem = evaluation_problem(plan, sizes_of(weights, job.parameters), architecture, room)
    if problem is not None:
        raise problem


def _read(job: wire.JobSpec) -> tuple[tuple[Weight, ...] | None, Architecture | None]:
    folder = model_folder(job.model_path)
    if folder is None and job.model_path == wire.BUILT_IN_MODEL:
        return built_in().weights, built_in().architecture
    if folder is None:
        return None, None
    with contextlib.suppress(OSError, BadInput):  # the check of the model says what is wrong with it
        return weights_in(str(folder), folder, _FIELD), architecture_of(read_file(folder, "config.json"))
    return None, None


def evaluation_problem(plan: Plan, sizes: Sizes, architecture: Architecture, room: Capacity) -> BadInput | None:
    """The refusal of an evaluation that takes more than there is, with the largest batch that would fit."""
    counted = weights_bytes(plan, sizes) + PROCESS_BYTES
    logits = evaluation_bytes(plan, architecture)
    if counted <= room.available and counted + logits <= RECKONED_TOO_HIGH * room.available:
        return None
    place = "the GPU" if room.device == "gpu" else "this machine"
    message = (
        f"The evaluation needs about {size_in_words(counted + logits)} of memory, and {place} has "
        f"{size_in_words(room.available)} available"
    )
    rows = plan.parameters.per_device_eval_batch_size or plan.batch_size
    fits = max(0, room.available - counted) * rows // max(1, logits)
    if fits >= 1:
        remedy = f'The largest that fits is "batch_size": {min(fits, max(1, rows - 1))}.'
        return BadInput(message, remedy, field="batch_size")
    return BadInput(message, "Not one record at a time fits: free some memory, or judge a smaller model.", field=_FIELD)
