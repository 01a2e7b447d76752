"""Models by transformers, from a local folder or the hub. No code and no pickle from a model is ever run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from msgspec import Struct
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from trainer_entry.providers import hub
from trainer_entry.providers.builtin_model import resolve
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.providers.precision import placement
from trainer_entry.runtime.failures import ModelUnavailable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel  # with all that a model is made of, which takes seconds

    from trainer_entry.wire import Attention, Task

_REPACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' 4-bit modules
_WEIGHT_FILES = {".safetensors", ".bin", ".pt", ".gguf"}
_MOST_TOKENS = 1 << 20
"""What a tokenizer without a limit says is more than this."""
_UNLIMITED = 1024
"""How many tokens a model takes that says nothing of it: one with relative positions, mostly."""
_PADDING_FIRST = frozenset(
    {
        *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "mpnet", "roberta"),
        *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""Model types whose first positions, through that of the padding token, are no text's."""

AnyAutoModel = type[AutoModelForCausalLM | AutoModelForSeq2SeqLM | AutoModelForQuestionAnswering]


class KnownModel(Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a model before its weights are read: how it is built, and which weights these are."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    revision: str | None
    context: int

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether a text is read by one part of the model, and the answer written by another."""
        return bool(self.config.is_encoder_decoder)


class LoadedModel(KnownModel, frozen=True, kw_only=True, gc=False):
    """A model with its weights."""

    model: PreTrainedModel

    @property
    def is_adapted(self) -> bool:
        """Whether it came with the adapter that is trained."""
        from peft import PeftModel  # takes seconds

        return isinstance(self.model, PeftModel)


class Source(Struct, frozen=True, gc=False):
    """Where a model's files are, and all that is read of them before the weights."""

    where: str
    cache_only: bool
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase


def load(
    path: str,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None,
    task: Task = "text-generation",
    attention: Attention | None = None,
) -> LoadedModel:
    """Load a model for a task: from a local folder, by a hub id, or by the built-in name.

    A head that the weights do not have is made new, with random ones. `attention`: None for transformers' own choice.

    Raises:
        ModelUnavailable: it is not to be had, or has no form for this task.
    """
    source = find(path)
    model = model_class(source.config, task).from_pretrained(
        source.where,
        dtype=dtype,
        quantization_config=quantization,
        attn_implementation=attention,
        device_map=placement(),
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=source.cache_only,
    )
    if quantization is not None:
        keep_gradients_exact(model)
    return LoadedModel(
        model=model,
        config=model.config,
        tokenizer=source.tokenizer,
        revision=revision_of(source.where, model.config),
        context=context_of(model.config, source.tokenizer),
    )


def know(path: str) -> KnownModel:
    """A model without its weights, which take memory.

    Raises:
        ModelUnavailable: it is not to be had.
    """
    source = find(path)
    return KnownModel(
        config=source.config,
        tokenizer=source.tokenizer,
        revision=revision_of(source.where, source.config),
        context=context_of(source.config, source.tokenizer),
    )


def recomputes(config: PreTrainedConfig, task: Task) -> bool:
    """Whether a model of this architecture can compute its activations again, as gradient checkpointing needs."""
    kind = model_class(config, task)._model_mapping[type(config)]  # noqa: SLF001
    return bool(getattr(kind, "supports_gradient_checkpointing", False))


def find(path: str) -> Source:
    """Find a model: in a local folder, by a hub id, or by the built-in name.

    Raises:
        ModelUnavailable: it is not to be had, or a file of it must not be read.
    """
    where = resolve(path)
    local = Path(where)
    if local.is_dir() and not (local / "config.json").is_file():
        raise ModelUnavailable(f"{path} is not a model's folder: it has no config.json.")
    check_folder(where)
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
    _check_generation(path, where, local_files_only=cache_only)
    count, padding = embedded_tokens(config), tokenizer.pad_token_id
    # One that was added after the model was made has no embedding; what is padded with is never looked at.
    if padding is None or (count is not None and padding >= count):
        tokenizer.pad_token = tokenizer.eos_token
    return Source(where, cache_only, config, tokenizer)


def _check_generation(path: str, where: str, *, local_files_only: bool) -> None:
    """Refuse a model whose generation settings contradict each other: its weights could not be loaded.

    Raises:
        ModelUnavailable: it says what is wrong with them.
    """
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(where, local_files_only=local_files_only)
    except OSError:  # it has none; transformers makes one of its config
        return
    except (TypeError, ValueError) as error:
        raise ModelUnavailable(
            f"The generation_config.json of {path} cannot be used: {error} Correct the file, or take it away."
        ) from error


def embedded_tokens(config: PreTrainedConfig) -> int | None:
    """How many tokens, from 0 on, a model has embeddings of; None where its config does not say."""
    parts = (config.get_text_config(encoder=True), config.get_text_config(decoder=True))
    counts = [count for part in parts if isinstance(count := getattr(part, "vocab_size", None), int)]
    return min(counts, default=None)


def model_class(config: PreTrainedConfig, task: Task) -> AnyAutoModel:
    """What loads a model of this architecture for a task.

    Raises:
        ModelUnavailable: the architecture has no form for the task.
    """
    match task:
        case "text-generation":
            return _causal(config, task)
        case "summarization":
            if not config.is_encoder_decoder:
                return _causal(config, task)
            auto: AnyAutoModel = AutoModelForSeq2SeqLM
            instead = "Use a model that writes text, such as T5 or BART, or a causal one."
        case "extractive-question-answering":
            auto = AutoModelForQuestionAnswering
            instead = "Use an encoder, such as BERT or RoBERTa."
        case _:
            assert_never(task)
    if type(config) not in auto._model_mapping:  # noqa: SLF001
        raise ModelUnavailable(f"A {config.model_type} model has no form for {task}. {instead}")
    return auto


def _causal(config: PreTrainedConfig, task: Task) -> type[AutoModelForCausalLM]:
    causal = AutoModelForCausalLM._model_mapping  # noqa: SLF001
    if config.is_encoder_decoder:
        raise ModelUnavailable(
            f"A {config.model_type} model is an encoder-decoder, which {task} is not built for: use a causal one."
        )
    if type(config) not in causal:
        raise ModelUnavailable(f"A {config.model_type} model has no form for {task}: use a causal one.")
    # An encoder can be loaded as a decoder, and then says nothing that makes sense.
    is_encoder = type(config) in AutoModelForMaskedLM._model_mapping and not config.is_decoder  # noqa: SLF001
    if is_encoder and not any("CausalLM" in name or "LMHead" in name for name in config.architectures or []):
        raise ModelUnavailable(
            f"A {config.model_type} model is an encoder, which cannot write text for {task}: use a causal one."
        )
    return AutoModelForCausalLM


def decoder_positions(config: PreTrainedConfig) -> int | None:
    """How many tokens the decoder of an encoder-decoder model takes; None: any number."""
    if config.model_type == "encoder-decoder":
        return _positions(config.decoder)
    limit = getattr(config, "max_decoder_position_embeddings", None)
    return limit if isinstance(limit, int) else _positions(config)


def keep_gradients_exact(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for AVX512-BF16.

    On such a CPU the first forward without gradients (an evaluation, a generation) would repack them, and every
    gradient after it would be wrong, without an error.
    """
    for module in model.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)


def context_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the model reads at once: as many as its positions and its tokenizer allow."""
    if config.model_type == "encoder-decoder":
        positions = _positions(config.encoder)
    else:
        positions = getattr(config, "max_encoder_position_embeddings", None) or _positions(config)
    said = int(tokenizer.model_max_length)
    limits = [limit for limit in (positions, said if said <= _MOST_TOKENS else None) if limit is not None]
    return min(limits) if limits else _UNLIMITED


def _positions(config: PreTrainedConfig) -> int | None:
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions - (text.pad_token_id or 0) - 1 if text.model_type in _PADDING_FIRST else positions


def revision_of(where: str, config: PreTrainedConfig) -> str | None:
    """The commit of a hub model; of a local folder, the SHA-256 of its weight files' names and sizes."""
    folder = Path(where)
    if not folder.is_dir():
        return getattr(config, "_commit_hash", None)
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _WEIGHT_FILES:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()
