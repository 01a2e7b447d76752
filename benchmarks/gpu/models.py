"""The model that is trained: SmolLM2's weights where they are, else random ones of its shape, else a tiny one."""
# mypy: allow-untyped-calls

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.records import corpus
from trainer_entry.wire import built_in_model_folder

if TYPE_CHECKING:
    from gpu.bench import Sizes

SMOLLM2: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.041666666666666664,
    "tie_word_embeddings": True,
}
"""The sizes in config.json of HuggingFaceTB/SmolLM2-135M-Instruct."""

_TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
_SPECIAL = ["<unk>", "<s>", "</s>"]
_WORDS = 2048
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def prepare_model(folder: Path, sizes: Sizes, given: Path | None, *, tiny: bool) -> str:
    """Put the model into `folder`, without a chat template, and say which it is.

    Without a template the same text reaches the bare libraries: a prompt, a line break, and the completion.
    """
    if given is None and not tiny:
        built_in = Path(built_in_model_folder(str(Path.home()), os.environ.get("XDG_CACHE_HOME")))
        given = built_in if built_in.is_dir() else None
    if given is not None:
        _copy(given, folder)
        return f"the weights in {given.name}, without a chat template"
    if tiny:
        _make(folder, {**_TINY, "max_position_embeddings": sizes.longest_row})
        return "a tiny model with random weights"
    _make(folder, SMOLLM2)
    return "random weights of the shape of SmolLM2-135M (seed 7): its trained ones are not on this machine"


def _copy(given: Path, folder: Path) -> None:
    """The same files but for the chat template."""
    folder.mkdir()
    for file in given.iterdir():
        if file.name == "tokenizer_config.json":
            settings = json.loads(file.read_text())
            settings.pop("chat_template", None)
            (folder / file.name).write_text(json.dumps(settings))
        elif file.is_file() and file.name not in _TEMPLATE_FILES:
            shutil.copyfile(file, folder / file.name)


def _make(folder: Path, sizes: dict[str, Any]) -> None:
    """Random weights from a fixed seed, and a tokenizer learned from the records."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_WORDS, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(corpus(), trainer)
    unknown, begin, end = _SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        pad_token=unknown,
        model_max_length=sizes["max_position_embeddings"],
    )
    torch.manual_seed(7)
    config = LlamaConfig(
        **{"vocab_size": len(tokenizer), **sizes},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
