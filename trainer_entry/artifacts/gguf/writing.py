"""Writes a model as a GGUF file into a folder, with a Modelfile for Ollama and the model's card beside it."""
# mypy: allow-untyped-calls

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
from msgspec import Struct

from trainer_entry.artifacts.gguf.file import Names, begin_file, digest_of, end_file
from trainer_entry.artifacts.gguf.go_template import ANY_PROMPT, go_template
from trainer_entry.artifacts.gguf.modelfile import Modelfile, sampling_parameters
from trainer_entry.artifacts.gguf.quantizing import quantize
from trainer_entry.artifacts.gguf.source import license_of, read_source
from trainer_entry.artifacts.gguf.weights import stored_type
from trainer_entry.runtime.progress import describe
from trainer_entry.wire import Export, Merge
from trainer_entry.wire.gguf import OWN, Quantization

if TYPE_CHECKING:
    from trainer_entry.artifacts.gguf.source import Source
    from trainer_entry.runtime.progress import Progress
    from trainer_entry.wire import AttemptSpec

_CARD = "README.md"
_MODELFILE = "Modelfile"
_LIBRARIES = ("gguf", "transformers")


class Made(Struct, frozen=True):
    """The SHA-256 of each file, and what of the model the files have not, or have otherwise."""

    sums: dict[str, str]
    warnings: tuple[str, ...]


def write_gguf(spec: AttemptSpec, work: Export, folder: Path, progress: Progress) -> Made:
    """Write an export as GGUF into a new folder; what is needed meanwhile lies beside it.

    Raises:
        NotWritable: llama.cpp would compute, or read texts, otherwise than the model does.
        QuantizerFailed: the program that quantizes did not do it.
        ModelUnavailable, BaseChanged, NotMergeable: an adapter cannot be merged into its base.
    """
    progress.stay_alive()
    path = Path(work.path)
    if work.merges:
        path = _merged(spec, work, folder.with_name("merged"), progress)
    source = read_source(path)
    folder.mkdir()
    quantization = work.quantization or "f16"
    name = f"{work.name}-{quantization}.gguf"
    sums = _write_beside(source, folder, work, name)
    base = Path(spec.job.model_name).name if Path(spec.job.model_name).is_absolute() else spec.job.model_name
    names = Names(work.name, base, license_of(spec.job.model_path))
    # All is read again when it is written.
    small = sum(entry.stat().st_size for entry in folder.iterdir())
    if quantization in OWN:
        begun = begin_file(source, folder / name, names, quantization)
        progress.begin(2 * begun.size + small, "bytes", describe(*_LIBRARIES))
        sums[name] = end_file(begun, progress)
    else:
        sums[name] = _write_quantized(source, folder / name, names, (spec, work, quantization), small, progress)
    if work.merges:
        shutil.rmtree(path)
    return Made(sums, source.warnings)


def _merged(spec: AttemptSpec, work: Export, folder: Path, progress: Progress) -> Path:
    """Merge an adapter into a folder that is there until the file is written."""
    from trainer_entry.artifacts.merge import merge_into

    progress.enter("merging")
    merge = Merge(model_id=work.model_id, name=work.name, path=work.path, base_revision=work.base_revision)
    merge_into(folder, spec.job, merge, spec.cpu_threads)
    progress.enter("exporting")
    return folder


def _write_beside(source: Source, folder: Path, work: Export, name: str) -> dict[str, str]:
    """Write the Modelfile and the card; the SHA-256 of each."""
    chats, template = source.chats, ANY_PROMPT
    if chats is not None:
        template = (
            "" if chats.form is None else go_template(chats.form, begins=source.special.begins, opening=source.opening)
        )
    modelfile = Modelfile(
        name=work.name,
        file=name,
        template=template or None,
        stops=tuple(str(source.tokenizer.convert_ids_to_tokens(number)) for number in source.special.stops),
        parameters=sampling_parameters(source.generation),
        warnings=source.warnings,
    )
    contents = {_MODELFILE: modelfile.text().encode()}
    card = Path(work.path) / _CARD
    if card.is_file():
        contents[_CARD] = card.read_bytes()
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}


def _write_quantized(
    source: Source,
    path: Path,
    names: Names,
    asked: tuple[AttemptSpec, Export, Quantization],
    small: int,
    progress: Progress,
) -> str:
    """Write a file with all that the model's numbers say, and have it quantized; the SHA-256 of what comes of it."""
    spec, work, quantization = asked
    whole = path.parent.with_name("whole.gguf")
    begun = begin_file(source, whole, names, stored_type(source.folder))
    # It is written, and quantized; what comes of that is smaller, and read twice.
    total = 4 * begun.size + small
    progress.begin(total, "bytes", describe(*_LIBRARIES))
    end_file(begun, progress)

    def written(count: int) -> None:
        progress.advance(max(0, begun.size + min(count, begun.size) - progress.step))

    quantize(work.quantizer or "", whole, path, quantization, spec.cpu_threads, written)
    whole.unlink()
    gguf.GGUFReader(path)  # it reads no file that is none, or that ends too early
    progress.advance(max(0, total - small - 2 * path.stat().st_size - progress.step))
    return digest_of(path, progress)
