"""What a model writes after prompts, greedily: a figure of it is the same every time."""
# mypy: allow-untyped-calls

from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from trainer_entry.data.edges import end_token_ids


def write_greedily(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], limit: int
) -> list[list[int]]:
    """The tokens that a model writes after each prompt, in `limit` at most; of some, padding is their end.

    An encoder-decoder model reads the prompts, and what it writes begins with a token of its own.
    """
    width = max(map(len, prompts))
    left = not model.config.is_encoder_decoder  # an answer follows its prompt, so the padding stands before both
    padding = int(tokenizer.pad_token_id or 0)
    gaps = [width - len(prompt) for prompt in prompts]
    rows = [[padding] * gap * left + prompt + [padding] * gap * (not left)
            for gap, prompt in zip(gaps, prompts, strict=True)]  # fmt: skip
    masks = [[0] * gap * left + [1] * (width - gap) + [0] * gap * (not left) for gap in gaps]
    with torch.no_grad():
        written = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(masks, device=model.device),
            generation_config=_configure(model, tokenizer, limit),
        )
    answers = written[:, width:] if left else written
    return [row.tolist() for row in answers]


def _configure(model: Any, tokenizer: PreTrainedTokenizerBase, limit: int) -> GenerationConfig:
    own = model.generation_config
    return GenerationConfig(
        max_new_tokens=limit,
        do_sample=False,
        num_beams=1,
        eos_token_id=end_token_ids(tokenizer, own.eos_token_id),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=getattr(own, "decoder_start_token_id", None),
        bos_token_id=own.bos_token_id,
        forced_bos_token_id=getattr(own, "forced_bos_token_id", None),  # the language, for some
    )
