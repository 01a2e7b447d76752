"""A model that is to become a GGUF file: everything of its folder but the weights, read and looked at."""
# mypy: allow-untyped-calls

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from trainer_entry.artifacts.gguf.agreement import Agreed, agreed_form
from trainer_entry.artifacts.gguf.chats import Chat, Turn
from trainer_entry.artifacts.gguf.special_tokens import SpecialTokens, special_tokens_of
from trainer_entry.artifacts.gguf.vocabulary import Vocabulary, vocabulary_of
from trainer_entry.data.edges import edges_of
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.failures import NotWritable
from trainer_entry.wire.gguf import ModelConfig, fault_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)
_FRONT_MATTER = 4096
_ASKED = Chat((Turn("user", "a"),))
_WINDOWED = frozenset({"mistral", "phi3"})


class Source(Struct, frozen=True, kw_only=True):
    """A model. `chats`: how it writes them, where it has a chat template. `rows`: tokens that its embedding has."""

    folder: Path
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    generation: GenerationConfig | None
    vocabulary: Vocabulary
    special: SpecialTokens
    chats: Agreed | None

    @property
    def rows(self) -> int:
        """Tokens that the embedding has a row for."""
        return int(self.config.vocab_size)

    @property
    def opening(self) -> str:
        """What chats begin with that llama.cpp does not put there: the space before a text that begins with a word."""
        form = None if self.chats is None else self.chats.form
        if form is None or not self.vocabulary.space_first:
            return ""
        begun = self.tokenizer(form.write(_ASKED), add_special_tokens=False)["input_ids"][0]
        return "" if begun in self.tokenizer.added_tokens_decoder else " "

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the model its file has not, or llama.cpp does otherwise."""
        window = getattr(self.config, "sliding_window", None)
        windowed = bool(window) and self.config.model_type in _WINDOWED
        return (
            *self.vocabulary.warnings,
            *(() if self.chats is None else self.chats.warnings),
            *([f"The model sees the last {window} tokens alone; llama.cpp has it see all."] if windowed else []),
        )


def read_source(folder: Path) -> Source:
    """Read a model's folder.

    Raises:
        ModelUnavailable: a file of it must not be read.
        NotWritable: the model cannot be written as GGUF.
    """
    check_folder(str(folder))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    fault = fault_of(
        ModelConfig(
            model_type=config.model_type,
            architectures=config.architectures,
            is_encoder_decoder=bool(config.is_encoder_decoder),
            quantization_config=getattr(config, "quantization_config", None),
            use_sliding_window=getattr(config, "use_sliding_window", None),
        )
    )
    if fault is not None:  # the server could not look: a base that was not on its machine
        raise NotWritable(fault)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    has_settings = (folder / "generation_config.json").is_file()
    generation = GenerationConfig.from_pretrained(folder) if has_settings else None
    chats = None if tokenizer.chat_template is None else agreed_form(tokenizer, edges_of(tokenizer).ends)
    chat_begins = None if chats is None or chats.form is None else bool(chats.form.begin)
    return Source(
        folder=folder,
        config=config,
        tokenizer=tokenizer,
        generation=generation,
        vocabulary=vocabulary_of(tokenizer, config.vocab_size, chats=chat_begins is not None),
        special=special_tokens_of(tokenizer, generation, chat_begins=chat_begins),
        chats=chats,
    )


def license_of(model: str) -> str | None:
    """The license that a base model's card names, where its folder is on this machine."""
    card = Path(model) / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        found = _LICENSE.search(file.read(_FRONT_MATTER))
    return None if found is None else found[1]
