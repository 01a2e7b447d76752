"""Models by transformers, from a local folder or the hub. No code and no pickle from a model is ever run."""

import hashlib
from pathlib import Path

import torch
from msgspec import Struct
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainer_entry import hub
from trainer_entry.builtin_model import resolve
from trainer_entry.failures import ModelUnavailable
from trainer_entry.wire import Task

_REPACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' 4-bit modules
_WEIGHT_FILES = {".safetensors", ".bin", ".pt", ".gguf"}


class LoadedModel(Struct, frozen=True, gc=False):
    """A model with its tokenizer, and which weights these are."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str | None
    context: int

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether a text is read by one part of the model, and the answer written by another."""
        return bool(self.model.config.is_encoder_decoder)


def load(
    path: str, dtype: torch.dtype, quantization: BitsAndBytesConfig | None, task: Task = "text-generation"
) -> LoadedModel:
    """Load a causal language model: from a local folder, by a hub id, or by the built-in name."""
    where = resolve(path)
    local = Path(where)
    if local.is_dir() and not (local / "config.json").is_file():
        raise ModelUnavailable(f"{path} is not a model's folder: it has no config.json.")
    cache_only = not local.is_dir() and not hub.is_reachable()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, local_files_only=cache_only)
    except OSError as error:
        if not cache_only:
            raise
        raise ModelUnavailable(
            f"{path} is neither a folder nor in this machine's cache, and the hub cannot be reached."
        ) from error
    config = AutoConfig.from_pretrained(where, trust_remote_code=False, local_files_only=cache_only)
    auto = (
        AutoModelForQuestionAnswering
        if task == "extractive-question-answering"
        else AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else AutoModelForCausalLM
    )
    model = auto.from_pretrained(
        where,
        dtype=dtype,
        quantization_config=quantization,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=cache_only,
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if quantization is not None:
        keep_gradients_exact(model)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        revision=_revision(where, model),
        context=_context(model, tokenizer),
    )


def keep_gradients_exact(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for AVX512-BF16.

    On such a CPU the first forward without gradients (an evaluation, a generation) would repack them, and every
    gradient after it would be wrong, without an error.
    """
    for module in model.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)


def _context(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the model takes: a tokenizer without a limit says so with a huge number."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(int(tokenizer.model_max_length), positions or int(tokenizer.model_max_length), 1 << 20)


def _revision(where: str, model: PreTrainedModel) -> str | None:
    """The commit of a hub model; of a local folder, the SHA-256 of its weight files' names and sizes."""
    folder = Path(where)
    if not folder.is_dir():
        return getattr(model.config, "_commit_hash", None)
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _WEIGHT_FILES:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()
