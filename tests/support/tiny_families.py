"""Tiny causal models of every family that is written as GGUF, with random weights that make a difference."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from support.tiny_model import CORPUS

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

Family = Literal[
    "llama", "llama3-rope", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3", "smollm3", "olmo2", "gpt2"
]
Cut = Literal["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2"]

SPACE = "\u2581"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PATTERN = _CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIFFICULT = (
    "Why does bread rise? Yeast!",
    "  spaces before, and after  ",
    "Ünïcødé 漢字 עברית 👩‍🍳 e\u0301",
    "123456 7.89 1,000,000",
    "I'll don't WE'RE can't 'S",
    "tabs\tand\n\n\nlines  \n x",
    "<|im_start|>user\nhi<|im_end|>\n",
    'f(x)[0] += {"k": "v"}; // \\n',
    "\n",
    "    ",
)


def build_family(folder: Path, family: Family, tokenizer: PreTrainedTokenizerFast, *, rows: int = 0) -> Path:
    """Write a model of the family. `rows`: of its embedding, where it has more than the tokenizer has tokens."""
    import torch
    import transformers as hf

    torch.manual_seed(7)
    common: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": rows or len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.2,
    }  # fmt: skip
    wide = common | {"head_dim": 32, "query_pre_attn_scalar": 32}
    model: Any
    match family:
        case "llama":
            model = hf.LlamaForCausalLM(hf.LlamaConfig(**common, tie_word_embeddings=True, attention_bias=True))
        case "llama3-rope":
            rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            rope |= {"original_max_position_embeddings": 64, "rope_theta": 10_000.0}
            model = hf.LlamaForCausalLM(hf.LlamaConfig(**common, rope_parameters=rope))
        case "mistral":
            model = hf.MistralForCausalLM(hf.MistralConfig(**common, sliding_window=None, head_dim=32))
        case "qwen2":
            model = hf.Qwen2ForCausalLM(hf.Qwen2Config(**common))
        case "qwen3":
            model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**common, head_dim=32))
        case "phi3":
            model = hf.Phi3ForCausalLM(hf.Phi3Config(**common, original_max_position_embeddings=256))
        case "gemma":
            model = hf.GemmaForCausalLM(hf.GemmaConfig(**common, head_dim=32))
        case "gemma2":
            model = hf.Gemma2ForCausalLM(hf.Gemma2Config(**wide))
        case "gemma3":
            wide |= {"num_hidden_layers": 7, "sliding_window": 16}
            model = hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**wide))
        case "smollm3":
            common |= {"num_hidden_layers": 5}
            model = hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**common))
        case "olmo2":
            model = hf.Olmo2ForCausalLM(hf.Olmo2Config(**common))
        case "gpt2":
            config = hf.GPT2Config(
                n_embd=64, n_layer=2, n_head=4, n_positions=256, vocab_size=common["vocab_size"], initializer_range=0.2,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
            model = hf.GPT2LMHeadModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:  # those of norms and biases are all the same at first
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer(cut: Cut = "gpt-2", chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Pairs of bytes, within pieces that a pattern cuts, as llama.cpp calls it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in {"gpt-2", "smollm"})
    match cut:
        case "gpt-2":
            words.pre_tokenizer = bytewise
        case "smollm":
            words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytewise])
        case "llama-bpe" | "smaug-bpe" | "qwen2":
            pattern = Regex(_PATTERN % ("" if cut == "qwen2" else "{1,3}"))
            split = pre_tokenizers.Split(pattern, behavior="isolated", invert=False)
            words.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    words.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>"]
    words.train_from_iterator(
        [*CORPUS, *DIFFICULT] * 4,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<|begin|>",  # noqa: S106 - no password
        eos_token="<|im_end|>" if chat_template else "<|endoftext|>",
        pad_token="<|endoftext|>",  # noqa: S106
        model_max_length=256,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def sentencepiece_tokenizer(*, prefix: bool = True, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Pairs of characters and a token for each byte, as Llama 2 has it; without a space before texts, as Gemma."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    words = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106
    texts = [f"{SPACE}{text.replace(' ', SPACE)}" for text in CORPUS * 4]
    words.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=620, special_tokens=[*special, *single], show_progress=False)
    )
    import json

    saved = json.loads(words.to_str())
    saved["added_tokens"] = [one for one in saved["added_tokens"] if one["content"] in special]
    words = Tokenizer.from_str(json.dumps(saved))
    words.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(SPACE)] if prefix else []), normalizers.Replace(" ", SPACE)]
    )
    words.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", words.token_to_id("<s>"))]
    )
    words.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        pad_token="<unk>",  # noqa: S106
        model_max_length=256,
    )
    tokenizer.chat_template = chat_template
    return tokenizer
