"""GGUF files: two readers that are not ours compute by them what the model does, and cut texts as it does."""

from __future__ import annotations

import json
import resource
import stat
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support.chat_templates import SHAPES
from support.gguf_exports import export_gguf
from support.gguf_reference import Reference
from support.tiny_families import DIFFICULT, Cut, Family, build_family, byte_tokenizer, sentencepiece_tokenizer
from support.tiny_model import CHATML, build_tiny, build_tiny_model
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig, LlamaTokenizer

from trainer_entry.artifacts.gguf.vocabulary import vocabulary_of
from trainer_entry.runtime.disk import DiskFull
from trainer_entry.runtime.failures import BaseChanged, NotMergeable, NotWritable, PlaceTaken, QuantizerFailed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # in peft
]

TOKENS = list(range(3, 60))
SENTENCEPIECE = {"mistral", "phi3", "gemma", "gemma2", "gemma3"}
WITHIN = {"f32": 1e-4, "f16": 0.02, "bf16": 0.15, "q8_0": 0.6}
"""The most that a logit may differ, where logits have a deviation of 1.6."""


def logits_of(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([TOKENS])).logits[0]
    return found


def built(folder: Path, family: Family, **options: Any) -> Path:
    prefix = not family.startswith("gemma")
    tokenizer = sentencepiece_tokenizer(prefix=prefix) if family in SENTENCEPIECE else byte_tokenizer()
    return build_family(folder, family, tokenizer, **options)


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a chat template, whose answers end otherwise than its texts."""
    folder = build_tiny_model(tmp_path_factory.mktemp("chatting") / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "</s>"  # noqa: S105 - no password
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    GenerationConfig(eos_token_id=ends, do_sample=True, temperature=0.6, top_k=40).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA card.\n")
    return folder


@pytest.mark.parametrize("family", get_args(Family))
def test_ggml_computes_by_the_file_what_the_model_does(tmp_path: Path, family: Family) -> None:
    model = built(tmp_path / "model", family)
    done = export_gguf(model, tmp_path / "out")
    read = Reference(done.file)
    assert read.architecture == {"mistral": "llama", "llama3-rope": "llama"}.get(family, family)
    assert torch.allclose(read.logits(TOKENS), logits_of(model), atol=WITHIN["f32"])
    assert done.progress.step == done.progress.total
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["Modelfile", "cook-f32.gguf"]
    assert done.delivery.files == 2


@pytest.mark.parametrize("quantization", ["f16", "bf16", "q8_0"])
def test_numbers_of_each_type_are_as_near_as_the_type_allows(tmp_path: Path, quantization: Any) -> None:
    model = built(tmp_path / "model", "qwen3")
    done = export_gguf(model, tmp_path / "out", quantization)
    read = Reference(done.file)
    apart = (read.logits(TOKENS) - logits_of(model)).abs().max().item()
    assert 0 < apart < WITHIN[quantization]
    wanted = {"f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}[quantization]
    types = {name: kind.name for name, kind in read.types.items()}
    assert {types[name] for name in types if not name.endswith("norm.weight")} == {wanted}
    assert {types[name] for name in types if name.endswith("norm.weight")} == {"F32"}
    assert done.delivery.quantization == quantization
    assert done.progress.step == done.progress.total


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_transformers_reads_the_same_model_from_the_file(chatting: Path, tmp_path: Path, quantization: Any) -> None:
    done = export_gguf(chatting, tmp_path / "out", quantization)
    place: dict[str, Any] = {"pretrained_model_name_or_path": done.file.parent, "gguf_file": done.file.name}
    model = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    with torch.no_grad():
        read = model.eval()(torch.tensor([TOKENS])).logits[0]
    assert torch.allclose(read, logits_of(chatting), atol=WITHIN[quantization])
    ours, theirs = AutoTokenizer.from_pretrained(chatting), AutoTokenizer.from_pretrained(**place)
    for text in DIFFICULT:
        assert theirs(text)["input_ids"] == ours(text)["input_ids"], text
    assert theirs.chat_template == ours.chat_template


def test_a_file_says_what_it_is_and_where_answers_end(chatting: Path, tmp_path: Path) -> None:
    done = export_gguf(chatting, tmp_path / "out", "f16")
    keys, tokenizer = Reference(done.file).keys, AutoTokenizer.from_pretrained(chatting)
    assert keys["general.name"] == "cook"
    assert keys["general.license"] == "apache-2.0"
    assert keys["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert keys["tokenizer.chat_template"] == CHATML
    number = tokenizer.convert_tokens_to_ids
    assert keys["tokenizer.ggml.bos_token_id"] == number("<s>")
    assert keys["tokenizer.ggml.eos_token_id"] == number("</s>")
    assert keys["tokenizer.ggml.eot_token_id"] == number("<|im_end|>")
    assert keys["tokenizer.ggml.add_bos_token"] is False  # no chat of its training began with it
    lines = done.modelfile.splitlines()
    assert "FROM ./cook-f16.gguf" in lines
    assert {'PARAMETER stop "</s>"', 'PARAMETER stop "<|im_end|>"', "PARAMETER temperature 0.6"} <= set(lines)
    assert "PARAMETER top_k 40" in lines
    assert "{{ .Content }}<|im_end|>" in done.modelfile
    assert (done.file.parent / "README.md").read_text().endswith("A card.\n")
    assert done.delivery.files == 3


def test_a_model_without_a_chat_template_writes_on_what_it_is_given(tmp_path: Path) -> None:
    model = built(tmp_path / "model", "mistral")
    done = export_gguf(model, tmp_path / "out")
    assert 'TEMPLATE """{{ .Prompt }}"""' in done.modelfile.splitlines()
    assert Reference(done.file).keys["tokenizer.ggml.add_bos_token"] is True  # its tokenizer begins texts with it


def test_a_chat_that_begins_with_a_token_has_it_once(tmp_path: Path) -> None:
    template = "{{ bos_token }}" + CHATML
    model = build_family(tmp_path / "model", "llama", byte_tokenizer(chat_template=template))
    done = export_gguf(model, tmp_path / "out")
    assert Reference(done.file).keys["tokenizer.ggml.add_bos_token"] is True
    assert "<|begin|>" not in done.modelfile


def test_what_the_template_cannot_say_is_in_the_answer_and_in_the_modelfile(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ loop.index }} {{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    model = build_family(tmp_path / "model", "llama", byte_tokenizer(chat_template=template))
    done = export_gguf(model, tmp_path / "out")
    (warning,) = done.delivery.warnings
    assert "more than a Modelfile can say" in warning
    assert f"# {warning}" in done.modelfile.splitlines()
    assert "TEMPLATE " not in done.modelfile


def test_rows_without_a_token_are_named_as_unused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    model = build_family(tmp_path / "model", "llama", tokenizer, rows=len(tokenizer) + 9)
    keys = Reference(export_gguf(model, tmp_path / "out").file).keys
    assert len(keys["tokenizer.ggml.tokens"]) == keys["llama.vocab_size"] == len(tokenizer) + 9
    assert keys["tokenizer.ggml.tokens"][-1] == f"[PAD{len(tokenizer) + 8}]"
    assert keys["tokenizer.ggml.token_type"][-9:] == [gguf.TokenType.UNUSED] * 9


@pytest.mark.parametrize("cut", get_args(Cut))
def test_the_way_in_which_texts_are_cut_has_its_name(cut: Cut) -> None:
    tokenizer = byte_tokenizer(cut)
    found = vocabulary_of(tokenizer, len(tokenizer))
    assert (found.kind, found.pre) == ("gpt2", cut)
    assert found.types[:4] == (gguf.TokenType.CONTROL,) * 4


@pytest.mark.parametrize("prefix", [True, False])
def test_pairs_are_joined_by_scores_as_by_merges(prefix: object) -> None:
    tokenizer = sentencepiece_tokenizer(prefix=bool(prefix))
    found = vocabulary_of(tokenizer, len(tokenizer))
    assert (found.kind, found.space_prefix) == ("llama", prefix)
    types = [int(kind) for kind in found.types]
    assert types[:3] == [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    assert types[3:259] == [gguf.TokenType.BYTE] * 256
    for text in DIFFICULT[:-2]:
        known = joined_by_score(found.tokens, found.scores, f"{' ' * bool(prefix)}{text}".replace(" ", "\u2581"))
        assert known == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_a_space_before_the_first_word_alone_is_kept_in_chats(tmp_path: Path) -> None:
    saved = json.loads(sentencepiece_tokenizer().backend_tokenizer.to_str())["model"]
    merges = [(first, second) for first, second in saved["merges"]]
    for name, opening in (("zephyr", " "), ("mistral", ""), (None, "")):
        tokenizer = LlamaTokenizer(vocab=saved["vocab"], merges=merges, legacy=False)
        tokenizer.chat_template = None if name is None else SHAPES[name].template
        done = export_gguf(build_family(tmp_path / f"{name}", "llama", tokenizer), tmp_path / f"{name}-out")
        (warning,) = done.delivery.warnings
        assert "puts none" in warning if name else "puts both" in warning
        assert Reference(done.file).keys["tokenizer.ggml.add_space_prefix"] is (name is None)
        assert f'TEMPLATE """{opening}{{{{' in done.modelfile


def joined_by_score(tokens: tuple[str, ...], scores: tuple[float, ...], text: str) -> list[int]:
    """As sentencepiece does: of all neighbours that make a token, those whose token has the highest score, again."""
    ids = {token: number for number, token in enumerate(tokens)}
    pieces = list(text)
    while True:
        pairs = [(ids.get(a + b), place) for place, (a, b) in enumerate(pairwise(pieces))]
        known = [(-scores[number], place) for number, place in pairs if number is not None]
        if not known:
            break
        _, place = min(known)
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return [number for piece in pieces for number in ([ids[piece]] if piece in ids else bytes_of(piece, ids))]


def bytes_of(piece: str, ids: dict[str, int]) -> list[int]:
    return [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]


def test_a_tokenizer_that_cuts_otherwise_is_refused(tmp_path: Path) -> None:
    other = byte_tokenizer()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    lower = sentencepiece_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    words = AutoTokenizer.from_pretrained(build_tiny(tmp_path / "bert", "bert"))
    unigrams = AutoTokenizer.from_pretrained(build_tiny(tmp_path / "t5", "t5"))
    for tokenizer, says in ((other, "cuts texts"), (lower, "Lowercase"), (words, "WordPiece"), (unigrams, "Unigram")):
        with pytest.raises(NotWritable, match=says):
            vocabulary_of(tokenizer, len(tokenizer))


def test_a_name_makes_no_model_one_of_phi_3() -> None:
    plain = sentencepiece_tokenizer()
    assert vocabulary_of(plain, len(plain)).model_name("my-phi3-cook") == "my-Phi 3-cook"
    stripping = sentencepiece_tokenizer()
    added = [AddedToken(name, special=True, rstrip=True) for name in ("</s>", "<|user|>", "<|end|>")]
    stripping.add_tokens([*added, AddedToken("<|endoftext|>", special=True)], special_tokens=True)
    found = vocabulary_of(stripping, len(stripping))
    assert (found.model_name("cook"), found.model_name("my-phi-3")) == ("cook (Phi-3)", "my-phi-3")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("gemma2", {"query_pre_attn_scalar": 7}, "query_pre_attn_scalar"),
        ("gemma3", {"layer_types": ["full_attention"] * 7}, "layer_types"),
        ("smollm3", {"no_rope_layers": [1] * 5}, "no_rope_layers"),
        ("gpt2", {"activation_function": "relu"}, "relu"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    tmp_path: Path, family: Family, changes: dict[str, Any], says: str
) -> None:
    model = built(tmp_path / "model", family)
    config = json.loads((model / "config.json").read_text())
    rope = config.get("rope_parameters", {}) | changes.get("rope_parameters", {})
    if "longrope" in str(changes):
        rope |= {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8}
    (model / "config.json").write_text(json.dumps({**config, **changes, "rope_parameters": rope}))
    with pytest.raises(NotWritable, match=says):
        export_gguf(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_number_that_16_bits_cannot_hold_is_named(tmp_path: Path) -> None:
    model = built(tmp_path / "model", "qwen2")
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        loaded.model.layers[1].mlp.up_proj.weight[3, 4] = 1e6
    loaded.save_pretrained(model)
    with pytest.raises(NotWritable, match=r"layers\.1\.mlp\.up_proj.*bf16"):
        export_gguf(model, tmp_path / "out", "f16")
    export_gguf(model, tmp_path / "out", "bf16")


def adapted(model: Path, place: Path) -> Path:
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(place)
    AutoTokenizer.from_pretrained(model).save_pretrained(place)
    return place


def test_an_adapter_is_merged_on_the_way_and_nothing_of_that_stays(chatting: Path, tmp_path: Path) -> None:
    adapter = adapted(chatting, tmp_path / "adapter")
    done = export_gguf(adapter, tmp_path / "out", base=chatting)
    base = AutoModelForCausalLM.from_pretrained(chatting, dtype=torch.float32)
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(base, adapter).eval()(torch.tensor([TOKENS])).logits[0]
    assert torch.allclose(Reference(done.file).logits(TOKENS), wanted, atol=1e-3)
    assert (wanted - logits_of(chatting)).abs().max() > 0.1
    assert done.progress.phases == ["exporting", "merging", "exporting", "commit"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "out"]
    with pytest.raises(BaseChanged):
        export_gguf(adapter, tmp_path / "again", base=chatting, base_revision="0" * 40)
    assert not (tmp_path / "again").exists()


def test_an_adapter_that_cannot_be_merged_is_not_exported(chatting: Path, tmp_path: Path) -> None:
    adapter = adapted(chatting, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    weights[next(iter(weights))][:] = float("inf")
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(NotMergeable):
        export_gguf(adapter, tmp_path / "out", base=chatting)


QUANTIZER = """#!/bin/sh
echo "$@" > "{said}"
{does}
"""


def quantizer(folder: Path, does: str) -> Path:
    program = folder / "llama-quantize"
    program.write_text(QUANTIZER.format(said=folder / "said", does=does))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_a_program_quantizes_what_holds_all_that_the_model_says(chatting: Path, tmp_path: Path) -> None:
    program = quantizer(tmp_path, 'cp "$1" "$2"')
    done = export_gguf(chatting, tmp_path / "out", "q4_k_m", quantizer=str(program))
    _, _, kind, threads = (tmp_path / "said").read_text().split()
    assert (kind, threads) == ("Q4_K_M", "1")
    assert torch.allclose(Reference(done.file).logits(TOKENS), logits_of(chatting), atol=WITHIN["f32"])
    assert done.progress.step == done.progress.total
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama-quantize", "out", "said"]


@pytest.mark.parametrize(
    ("does", "says"),
    [("echo no such type; exit 3", "ended with 3.*no such type"), ("exit 0", "ended with 0"), ("kill -9 $$", "-9")],
)
def test_a_program_that_does_not_quantize_is_named(chatting: Path, tmp_path: Path, does: str, says: str) -> None:
    program = quantizer(tmp_path, does)
    with pytest.raises(QuantizerFailed, match=says):
        export_gguf(chatting, tmp_path / "out", "q6_k", quantizer=str(program))
    assert not (tmp_path / "out").exists()
    with pytest.raises(QuantizerFailed, match="could not be started"):
        export_gguf(chatting, tmp_path / "out", "q6_k", quantizer=str(tmp_path / "none"))


@pytest.mark.parametrize("quantization", ["f16", "q4_0"])
def test_a_disk_without_room_is_named_and_left_as_it_was(chatting: Path, tmp_path: Path, quantization: Any) -> None:
    program = quantizer(tmp_path, "true")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(DiskFull, match="no room"):
            export_gguf(chatting, tmp_path / "out", quantization, quantizer=str(program))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [program]


def test_an_export_that_was_done_already_is_the_same_to_the_byte(chatting: Path, tmp_path: Path) -> None:
    left = tmp_path / "out.train_000001.partial"
    (left / "merged").mkdir(parents=True)
    (left / "copy").write_text("half")
    first = export_gguf(chatting, tmp_path / "out", "q8_0")
    assert not left.exists()
    again = export_gguf(chatting, tmp_path / "out", "q8_0")  # as an attempt that was killed when all was done
    assert again.delivery == first.delivery
    with first.file.open("ab") as file:
        file.write(np.zeros(1, dtype=np.uint8).tobytes())
    with pytest.raises(PlaceTaken):
        export_gguf(chatting, tmp_path / "out", "q8_0")
