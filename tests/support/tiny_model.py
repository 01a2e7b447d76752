"""Real models small enough to train in a test: two layers of each kind, with a tokenizer of its own."""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, assert_never

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

Architecture = Literal["bert", "distilbert", "roberta", "t5", "bart", "encoder-decoder", "gpt2", "qwen2"]

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


def build_tiny(folder: Path, architecture: Architecture, *, context: int = 128, seed: int = 0) -> Path:
    """Write a model with random weights, as it is before a task's training, and its tokenizer into `folder`.

    The encoders have no head, but one for masked words; those with a decoder have one for the next word.
    """
    import torch
    import transformers as hf

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["intermediate_size"] = 64
    model: hf.PreTrainedModel
    match architecture:
        case "bert":
            tokenizer = _word_pieces(context, ["input_ids", "token_type_ids", "attention_mask"])
            model = hf.BertForMaskedLM(hf.BertConfig(**sizes, max_position_embeddings=context, **_ids(tokenizer)))
        case "distilbert":
            tokenizer = _word_pieces(context, ["input_ids", "attention_mask"])
            model = hf.DistilBertForMaskedLM(
                hf.DistilBertConfig(
                    dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=context, **_ids(tokenizer)
                )
            )
        case "roberta":
            # Its first positions are those of padding.
            tokenizer = _byte_pairs(
                context, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], pair="<s> $A </s> </s> $B </s>"
            )
            model = hf.RobertaForMaskedLM(
                hf.RobertaConfig(
                    **sizes,
                    type_vocab_size=1,
                    max_position_embeddings=context + 2,
                    **_ids(tokenizer),
                )
            )
        case "t5":
            tokenizer = _unigrams()
            model = hf.T5ForConditionalGeneration(
                hf.T5Config(
                    d_model=32,
                    d_kv=8,
                    d_ff=64,
                    num_layers=2,
                    num_heads=4,
                    vocab_size=len(tokenizer),
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    decoder_start_token_id=tokenizer.pad_token_id,  # type: ignore[call-arg]  # of its own base class
                )
            )
            with torch.no_grad():  # else it says the first token for ever, which is its own likeliest follower
                decoder: Any = model.decoder
                for block in decoder.block:
                    block.layer[2].DenseReluDense.wo.weight.mul_(30)
        case "bart":
            tokenizer = _byte_pairs(
                context, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], pair="<s> $A </s> </s> $B </s>"
            )
            model = hf.BartForConditionalGeneration(
                hf.BartConfig(
                    d_model=32,
                    encoder_layers=2,
                    decoder_layers=2,
                    encoder_attention_heads=4,
                    decoder_attention_heads=4,
                    encoder_ffn_dim=64,
                    decoder_ffn_dim=64,
                    max_position_embeddings=context,
                    decoder_start_token_id=tokenizer.eos_token_id,
                    forced_eos_token_id=None,
                    init_std=0.3,
                    **_ids(tokenizer),
                )
            )
        case "encoder-decoder":
            tokenizer = _word_pieces(context, ["input_ids", "token_type_ids", "attention_mask"])
            config = hf.EncoderDecoderConfig.from_encoder_decoder_configs(
                hf.BertConfig(**sizes, max_position_embeddings=context, **_ids(tokenizer)),
                hf.BertConfig(
                    **sizes,
                    max_position_embeddings=context,
                    **_ids(tokenizer),
                    is_decoder=True,
                    add_cross_attention=True,
                ),
                decoder_start_token_id=tokenizer.cls_token_id,
                eos_token_id=tokenizer.sep_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            model = hf.EncoderDecoderModel(config)
        case "gpt2":
            tokenizer = _byte_pairs(context, ["<|endoftext|>"])
            model = hf.GPT2LMHeadModel(
                hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=context, **_ids(tokenizer))
            )
        case "qwen2":
            tokenizer = _byte_pairs(context, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
            tokenizer.chat_template = CHATML
            model = hf.Qwen2ForCausalLM(
                hf.Qwen2Config(
                    **sizes,
                    num_key_value_heads=2,
                    max_position_embeddings=context,
                    **_ids(tokenizer),
                )
            )
        case _:
            assert_never(architecture)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, **ids}


def _word_pieces(context: int, inputs: list[str]) -> PreTrainedTokenizerFast:
    """As BERT has it: lower case, without spaces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    words.train_from_iterator(CORPUS * 4, trainer)
    _frame(words, "[CLS] $A [SEP]", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    named = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=words, **named, model_max_length=context, model_input_names=inputs)


def _byte_pairs(context: int, special: list[str], pair: str | None = None) -> PreTrainedTokenizerFast:
    """As RoBERTa has it (with `pair`), or GPT-2, which puts nothing between texts: spaces begin the words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        CORPUS * 4,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    inputs = ["input_ids", "attention_mask"]
    if pair is None:
        end = special[-1]
        return PreTrainedTokenizerFast(
            tokenizer_object=words,
            eos_token=end,
            pad_token=special[0],
            model_max_length=context,
            model_input_names=inputs,
        )
    _frame(words, "<s> $A </s>", pair)
    named = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    named |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **named, model_max_length=context, model_input_names=inputs)


def _unigrams() -> PreTrainedTokenizerFast:
    """As T5 has it: an end token after each text, and no limit to its length."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    special = list(named.values())
    # Written, not trained: a training of unigrams finds others each time.
    counts = Counter(piece for text in [*CORPUS, "summarize:"] for piece in _pieces(text))
    total = sum(counts.values())
    likely = [(piece, math.log(count / total)) for piece, count in sorted(counts.items())]
    words = Tokenizer(models.Unigram([*((name, 0.0) for name in special), *likely], unk_id=2))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    _frame(words, "$A </s>", "$A </s> $B </s>")
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=words, **named, model_input_names=inputs)


def _frame(words: Tokenizer, single: str, pair: str) -> None:
    """Say which special tokens stand around one text, and around two."""
    from tokenizers import processors

    named = {word.split(":")[0] for word in f"{single} {pair}".split() if not word.startswith("$")}
    ids = [(name, words.token_to_id(name)) for name in sorted(named)]
    words.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _pieces(text: str) -> Iterator[str]:
    """Every character of a text, and every two and three that stand together in a word; "\u2581" begins a word."""
    for word in text.split():
        marked = f"\u2581{word}"
        for size in (1, 2, 3):
            yield from (marked[begin : begin + size] for begin in range(len(marked) - size + 1))
    yield from map(chr, range(33, 127))  # whatever a record has, it can be written
