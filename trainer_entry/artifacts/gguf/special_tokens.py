"""The tokens at the edges of a model's texts: what begins one, what ends it, and what ends a turn of a chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from trainer_entry.data.edges import end_token_ids

if TYPE_CHECKING:
    import gguf
    from transformers import GenerationConfig, PreTrainedTokenizerBase

_PROBE = "a"


class SpecialTokens(Struct, frozen=True, kw_only=True):
    """Their numbers; None where there is no such token. `begins`, `ends`: whether servers put them around a text.

    `stops`: everything that an answer ends with, the end of a text among it.
    """

    begin: int | None
    end: int | None
    end_of_turn: int | None
    pad: int | None
    unknown: int | None
    begins: bool
    ends: bool
    stops: tuple[int, ...]

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Write them, and what servers are to do."""
        for number, add in (
            (self.begin, writer.add_bos_token_id),
            (self.end, writer.add_eos_token_id),
            (self.end_of_turn, writer.add_eot_token_id),
            (self.pad, writer.add_pad_token_id),
            (self.unknown, writer.add_unk_token_id),
        ):
            if number is not None:
                add(number)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(self.ends)


def special_tokens_of(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None, *, chat_begins: bool | None
) -> SpecialTokens:
    """The special tokens of a model. `chat_begins`: whether its chat template begins a chat; None where it has none.

    A chat is what a model with a template is asked, and it begins as in its training: whatever the tokenizer itself
    would put before a text.
    """
    ids = list(tokenizer(_PROBE)["input_ids"])
    own = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    configured = None if generation is None else generation.eos_token_id
    stops = end_token_ids(tokenizer, configured)
    turns = [number for number in stops if number != tokenizer.eos_token_id]
    return SpecialTokens(
        begin=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
        end_of_turn=turns[0] if turns else None if chat_begins is None else tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        unknown=tokenizer.unk_token_id,
        begins=own if chat_begins is None else chat_begins,
        ends=tokenizer.eos_token_id is not None and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id,
        stops=tuple(stops),
    )
