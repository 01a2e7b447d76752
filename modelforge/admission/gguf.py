"""An export as GGUF, looked at before it starts: the model is one that can be written, and there is room for it."""

import os
import shutil
from pathlib import Path

import msgspec

from modelforge.admission.estimate.capacity import free_disk
from modelforge.admission.estimate.fit import model_folder
from modelforge.admission.estimate.weights import weights_in
from modelforge.errors import BadInput, StorageFull
from modelforge.machine.reading_threads import read_apart
from modelforge.model_files import read_file
from modelforge.settings import Settings
from trainer_entry import wire
from trainer_entry.wire.gguf import BITS, OWN, QUANTIZER, ModelConfig, Quantization, fault_of

_FIELD = "format"
_GIGABYTE = 1e9


def quantization_of(kind: wire.ExportFormat, asked: Quantization | None) -> Quantization | None:
    """The type of numbers in effect: by default 16 bits; none where it is no GGUF.

    Raises:
        BadInput: one was asked for beside another format.
    """
    if kind == "gguf":
        return asked or "f16"
    if asked is not None:
        raise BadInput(
            "Only a GGUF is quantized",
            f'"quantization": "{asked}" goes with "format": "gguf"; leave it out for "{kind}".',
            field="quantization",
        )
    return None


async def admit_gguf(settings: Settings, spec: wire.JobSpec, work: wire.Export) -> wire.Export:
    """The export with the program that it needs, if it needs one. Other formats need nothing.

    Raises:
        BadInput: the model cannot be written, or there is no such program.
        StorageFull: there is no room for the file.
    """
    if work.format != "gguf" or work.quantization is None:
        return work
    if spec.task == "extractive-question-answering":
        raise BadInput(
            "A model that answers from a context is no model for a GGUF file",
            "It writes no text on, so that no server of such files could ask it; export it as folder, tar or zip.",
            field=_FIELD,
        )
    quantizer = None if work.quantization in OWN else _quantizer(settings, work.quantization)
    folder = model_folder(spec.model_path) if work.merges else Path(work.path)
    if folder is not None:  # else the trainer finds it, and asks the same
        await read_apart(_check_model, spec, work, folder, Path(work.to).parent if work.to else settings.data_dir)
    return msgspec.structs.replace(work, quantizer=quantizer)


def _quantizer(settings: Settings, quantization: Quantization) -> str:
    """The path of `llama-quantize`.

    Raises:
        BadInput: there is none; it says which types need none.
    """
    named = settings.llama_quantize
    found = shutil.which(QUANTIZER) if named is None else str(named) if os.access(named, os.X_OK) else None
    if found is None:
        where = "on the PATH" if named is None else f"at {named}, as the setting llama_quantize says"
        raise BadInput(
            f"{quantization} needs llama.cpp's {QUANTIZER}, which is not {where}",
            f"Install llama.cpp, or start the server with MODELFORGE_LLAMA_QUANTIZE set to its {QUANTIZER}; "
            f"{', '.join(OWN)} need no other program.",
            field="quantization",
        )
    return found


def _check_model(spec: wire.JobSpec, work: wire.Export, folder: Path, place: Path) -> None:
    """Refuse a model that cannot be written, and one for whose file there is no room."""
    name = spec.model_name if work.merges else work.name
    try:
        config = msgspec.json.decode(read_file(folder, "config.json"), type=ModelConfig)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput("The model cannot be read", f"{name}: config.json: {why}", field=_FIELD) from error
    fault = fault_of(config)
    if fault is not None:
        raise BadInput(
            f"{name} cannot be written as GGUF", f"{fault} Others are exported as folder, tar or zip.", field=_FIELD
        )
    _check_room(work, sum(weight.size for weight in weights_in(name, folder, _FIELD)), place)


def _check_room(work: wire.Export, numbers: int, place: Path) -> None:
    """What an export writes: the file; where a program quantizes, what that reads; of an adapter, the merged model."""
    quantization = work.quantization or "f16"
    bits = BITS[quantization] + (0 if quantization in OWN else 32) + (32 if work.merges else 0)
    wanted, free = int(numbers * bits / 8), free_disk(place)
    if wanted > free:
        raise StorageFull(
            f"The export writes about {wanted / _GIGABYTE:.1f} GB, and {free / _GIGABYTE:.1f} GB are free",
            f"Free some space at {place}, or export to a path on another disk.",
        )
