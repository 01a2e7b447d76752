"""The names that end tokens have."""

KNOWN_ENDS = frozenset(
    {
        *("</s>", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "<eos>", "<|eos|>", "[EOS]"),
        *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<end_of_turn>", "<turn|>", "<|end_of_turn|>"),
        *("<|return|>", "<|END_OF_TURN_TOKEN|>", "<|end_of_role|>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001 - its name
    }
)
"""By hand they end a text where the tokenizer knows them as tokens, be they its own or not."""
