"""Real models small enough to train in a test: a Llama of two layers, with a tokenizer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]
CORPUS = [
    "Why does bread rise? Yeast fills the dough with tiny bubbles of gas.",
    "What is blanching? Boil food very briefly, then cool it in ice water.",
    "How do I cook rice? Rinse it until the water runs clear, then boil it.",
    "system user assistant: you are a helpful cook. 0 1 2 3 4 5 6 7 8 9",
]


def build_tiny_model(
    folder: Path,
    *,
    chat_template: str | None = CHATML,
    hidden_size: int = 64,
    layers: int = 2,
    context: int = 256,
    seed: int = 0,
) -> Path:
    """Write a model with random weights and its tokenizer into `folder`, and give the folder back."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator(
        CORPUS * 4,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",  # noqa: S106 - no password
        bos_token="<s>",  # noqa: S106
        eos_token="<|im_end|>" if chat_template else "</s>",
        pad_token="<unk>",  # noqa: S106
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"],
        model_max_length=context,
    )
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
