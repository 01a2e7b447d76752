"""A GGUF file, written from its beginning to its end and hashed on the way (https://github.com/ggml-org/ggml, gguf.md).

Of the weights no more is in memory than the part that is being written.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from msgspec import Struct

from trainer_entry.artifacts.gguf.architectures import architecture_of, describe, rope_factors
from trainer_entry.artifacts.gguf.weights import Weight, parts_of, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.artifacts.gguf.source import Source
    from trainer_entry.runtime.progress import Progress
    from trainer_entry.wire import Quantization

_ALIGNMENT: int = gguf.GGUF_DEFAULT_ALIGNMENT
_ROPE_FACTORS = "rope_freqs.weight"
_NUMBERS = np.dtype(np.float32)
_BLOCK = 1 << 20
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


class Names(Struct, frozen=True, gc=False):
    """What a file says of where its model comes from."""

    name: str
    base: str
    license: str | None


class Begun(Struct, frozen=True):
    """A file that has all but the weights. `size`: what it will have, in bytes."""

    path: Path
    weights: tuple[Weight, ...]
    factors: np.ndarray[Any, np.dtype[np.float32]] | None
    size: int


def begin_file(source: Source, path: Path, names: Names, quantization: Quantization) -> Begun:
    """Write all that stands before the weights.

    Raises:
        NotWritable: there is something in the model that GGUF has no word for.
    """
    architecture = architecture_of(source.config)
    weights = tuple(plan_weights(source.folder, architecture, quantization))
    writer = gguf.GGUFWriter(None, architecture.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(source.vocabulary.model_name(names.name))
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, names.base)
    if names.license is not None:
        writer.add_license(names.license)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(int(_FILE_TYPES[quantization]))
    describe(writer, architecture, source.config, source.rows)
    source.vocabulary.write(writer)
    source.special.write(writer)
    if isinstance(source.tokenizer.chat_template, str):
        writer.add_chat_template(source.tokenizer.chat_template)
    factors = rope_factors(source.config)
    if factors is not None:
        writer.add_tensor_info(_ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for weight in weights:
        writer.add_tensor_info(weight.name, weight.shape, _NUMBERS, weight.bytes, raw_dtype=weight.type)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    sizes = [0 if factors is None else factors.nbytes, *(weight.bytes for weight in weights)]
    return Begun(path, weights, factors, _padded(path.stat().st_size) + sum(_padded(size) for size in sizes))


def end_file(begun: Begun, progress: Progress) -> str:
    """Write the weights; the SHA-256 of the whole file.

    Raises:
        NotWritable: a number cannot be written.
    """
    digest = hashlib.sha256(begun.path.read_bytes())
    with begun.path.open("ab") as file:

        def write(data: bytes | memoryview) -> None:
            file.write(data)
            digest.update(data)
            progress.advance(len(data))

        def pad() -> None:
            write(bytes(_padded(file.tell()) - file.tell()))

        progress.advance(file.tell())
        pad()
        if begun.factors is not None:
            write(begun.factors.tobytes())
            pad()
        for weight in begun.weights:
            for part in parts_of(weight):
                write(np.ascontiguousarray(part).data.cast("B"))
            pad()
    return digest.hexdigest()


def digest_of(path: Path, progress: Progress) -> str:
    """The SHA-256 of a file that others wrote."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            progress.advance(len(block))
    return digest.hexdigest()


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
