"""Exports as GGUF that are refused before anything starts, by the field to change, with what would work."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.attempt_files import write_weights
from support.trainer_attempts import job_of

from modelforge.admission import gguf
from modelforge.admission.gguf import admit_gguf, quantization_of
from modelforge.errors import BadInput, StorageFull
from modelforge.settings import Settings
from trainer_entry import wire
from trainer_entry.wire.gguf import BITS, FAMILIES, OWN, QUANTIZER

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a machine without llama.cpp."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "data").mkdir()
    return Settings(data_dir=tmp_path / "data")


def model_in(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    write_weights(folder / "model.safetensors", {"model.embed_tokens.weight": (1000, 1000)})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def admit(
    settings: Settings,
    model: Path,
    quantization: wire.Quantization = "f16",
    *,
    base: Path | None = None,
    task: wire.Task = "text-generation",
) -> wire.Export:
    work = wire.Export(
        model_id=1, name="cook", path=str(model), format="gguf", quantization=quantization, merges=base is not None
    )
    spec = job_of(wire.TrainingParameters(), model_path=str(base or model), task=task, work=work)
    return asyncio.run(admit_gguf(settings, spec, work))


def test_a_gguf_has_16_bits_by_default_and_nothing_else_is_quantized() -> None:
    assert quantization_of("gguf", None) == "f16"
    assert quantization_of("gguf", "q8_0") == "q8_0"
    assert quantization_of("tar", None) is None
    with pytest.raises(BadInput, match="quantized") as refused:
        quantization_of("folder", "q8_0")
    assert refused.value.field == "quantization"
    assert '"format": "gguf"' in refused.value.detail


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_is_written_is_let_through(settings: Settings, tmp_path: Path, family: str) -> None:
    model = model_in(tmp_path / "model", {"model_type": family, "architectures": ["AnyForCausalLM"]})
    assert admit(settings, model).quantizer is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "mamba"),
        ({"model_type": "t5", "is_encoder_decoder": True, "architectures": ["T5ForConditionalGeneration"]}, "t5"),
        ({"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "SequenceClassification"),
        ({**LLAMA, "quantization_config": {"quant_method": "bitsandbytes"}}, "quantized"),
        ({**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({**LLAMA, "rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window"),
    ],
    ids=["unknown", "T5", "BERT", "reward model", "4 bits", "dynamic", "longrope", "window"],
)
def test_a_model_that_cannot_be_written_is_refused_with_what_works(
    settings: Settings, tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    model = model_in(tmp_path / "model", config)
    for base in (None, model):
        with pytest.raises(BadInput) as refused:
            admit(settings, tmp_path / "adapter" if base else model, base=base)
        assert refused.value.field == "format"
        assert says in refused.value.detail
        assert "folder, tar or zip" in refused.value.detail


def test_a_model_that_answers_from_a_context_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        admit(settings, model_in(tmp_path / "model", LLAMA), task="extractive-question-answering")
    assert refused.value.field == "format"


def test_a_configuration_that_cannot_be_read_is_named(settings: Settings, tmp_path: Path) -> None:
    model = model_in(tmp_path / "model", LLAMA)
    (model / "config.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        admit(settings, model)


@pytest.mark.parametrize("quantization", [kind for kind in BITS if kind not in OWN])
def test_what_only_llama_cpp_makes_needs_its_program(
    settings: Settings, tmp_path: Path, quantization: wire.Quantization
) -> None:
    model = model_in(tmp_path / "model", LLAMA)
    with pytest.raises(BadInput) as refused:
        admit(settings, model, quantization)
    assert refused.value.field == "quantization"
    assert QUANTIZER in refused.value.message
    assert all(word in refused.value.detail for word in (*OWN, "MODELFORGE_LLAMA_QUANTIZE"))


def test_the_program_is_that_of_the_settings_or_the_one_on_the_path(settings: Settings, tmp_path: Path) -> None:
    model, named = model_in(tmp_path / "model", LLAMA), tmp_path / "llama"
    for program in (tmp_path / "bin" / QUANTIZER, named):
        program.write_text("#!/bin/sh\n")
    (tmp_path / "bin" / QUANTIZER).chmod(0o755)
    assert admit(settings, model, "q4_k_m").quantizer == str(tmp_path / "bin" / QUANTIZER)
    own = msgspec.structs.replace(settings, llama_quantize=named)
    with pytest.raises(BadInput, match="llama_quantize"):  # it cannot be run
        admit(own, model, "q4_k_m")
    named.chmod(0o755)
    assert admit(own, model, "q4_k_m").quantizer == str(named)
    assert admit(own, model, "q8_0").quantizer is None


def test_an_export_for_which_there_is_no_room_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_in(tmp_path / "model", LLAMA)  # of a million numbers
    for free, quantization, base, fits in (
        (2_000_000, "f16", None, True),
        (1_999_999, "f16", None, False),
        (1_100_000, "q8_0", None, True),
        (5_000_000, "f16", model, False),  # the merged model lies beside it
        (6_000_000, "f16", model, True),
    ):
        monkeypatch.setattr(gguf, "free_disk", lambda _place, free=free: free)
        if fits:
            admit(settings, model, quantization, base=base)  # type: ignore[arg-type]
            continue
        with pytest.raises(StorageFull, match="GB"):
            admit(settings, model, quantization, base=base)  # type: ignore[arg-type]
