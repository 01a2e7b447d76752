"""Adapters of every kind: what they learn, what is saved of them, and how a training goes on from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from support.tiny_model import build_tiny, build_tiny_model
from support.trainer_attempts import job_of, questions, write_dataset
from transformers import AutoModelForCausalLM

from trainer_entry.artifacts.initial_adapter import settle_initial
from trainer_entry.artifacts.merge import merge_layers
from trainer_entry.artifacts.rehearsal import rehearse_saving
from trainer_entry.artifacts.save import write_model
from trainer_entry.data.records import Records
from trainer_entry.providers import huggingface
from trainer_entry.providers.precision import quantization_config, weight_dtype
from trainer_entry.runtime.failures import ConflictingParameters, ModelUnavailable, NotTrainedWhole
from trainer_entry.strategies import sft
from trainer_entry.tasks.text_generation import prepare
from trainer_entry.training.defaults import resolve_parameters, with_model
from trainer_entry.training.trainer import check_all_learn
from trainer_entry.wire import JobSpec, TrainingParameters

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    # peft reads a name that this release of transformers has deprecated.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

KINDS: dict[str, dict[str, Any]] = {
    "DoRA, rank-stabilized, by LoRA+": {"use_dora": True, "use_rslora": True, "loraplus_lr_ratio": 2.0},
    "DoRA on 4 bits": {"use_dora": True, "use_4bit": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "PiSSA": {"init_lora_weights": "pissa", "modules_to_save": ("norm",)},
    "fast PiSSA, rank-stabilized": {"init_lora_weights": "pissa_niter_4", "use_rslora": True},
    "OLoRA": {"init_lora_weights": "olora"},
    "head trained whole": {"modules_to_save": ("lm_head",)},
    "tied embeddings trained whole": {"modules_to_save": ("embed_tokens",), "loraplus_lr_ratio": 2.0},
}
TAKES_OFF = {"PiSSA", "fast PiSSA, rank-stabilized", "OLoRA"}
PROBE = torch.tensor([[5, 80, 17, 200, 33, 120, 9]])


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The tiny model, and one whose output has the weights of its embeddings."""
    folder = tmp_path_factory.mktemp("bases")
    plain = build_tiny_model(folder / "plain")
    tied: Any = AutoModelForCausalLM.from_pretrained(build_tiny_model(folder / "tied"))
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(folder / "tied")
    return {False: plain, True: folder / "tied"}


class Run:
    """A trainer of 8 steps that saves at the fourth, as an attempt builds it."""

    def __init__(self, base: Path, folder: Path, *, resumes: bool = False, **asked: Any) -> None:
        parameters = TrainingParameters(
            **{"learning_rate": 0.02, "max_steps": 8, "save_steps": 4, "save_total_limit": None, "lora_r": 8, **asked}
        )
        strategy = "qlora" if parameters.use_4bit else "sft"
        self.job: JobSpec = job_of(
            parameters, strategy=strategy, checkpoint_dir=str(folder / "checkpoints"), output_dir=str(folder / "output")
        )
        self.parameters = with_model(resolve_parameters(self.job), self.job, 128, encoder_decoder=False)
        self.loaded = huggingface.load(str(base), weight_dtype(self.parameters), quantization_config(self.parameters))
        folder.mkdir(exist_ok=True)
        records = Records(write_dataset(folder / "data.jsonl", questions(40)))
        examples = prepare(records, frozenset(), self.loaded.tokenizer, 128)
        self.trainer = sft.build_trainer(self.job, self.loaded, examples, self.parameters)
        settle_initial(self.trainer, self.job, self.parameters, resumes=resumes)
        rehearse_saving(self.trainer, self.loaded, self.job, self.parameters)

    def train(self, checkpoint: Path | None = None) -> list[float]:
        self.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]

    @property
    def model(self) -> PeftModel:
        assert isinstance(self.trainer.model, PeftModel)
        return self.trainer.model


class Finished(msgspec.Struct):
    kind: str
    base: Path
    folder: Path
    losses: list[float]
    logits: torch.Tensor
    run: Run


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(PROBE).logits
    return logits


@pytest.fixture(scope="module", params=KINDS)
def finished(
    request: pytest.FixtureRequest, bases: dict[bool, Path], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    kind = request.param
    base, folder = bases["tied" in kind], tmp_path_factory.mktemp("run")
    run = Run(base, folder, **KINDS[kind])
    losses = run.train()
    write_model(folder / "adapter", run.model, run.loaded, run.job, run.parameters, {})
    return Finished(kind, base, folder, losses, logits_of(run.model), run)


def test_it_learns(finished: Finished) -> None:
    assert len(finished.losses) == 8
    assert finished.losses[0] - finished.losses[-1] > 0.3


def test_what_is_saved_is_a_plain_adapter_on_the_unchanged_base(finished: Finished) -> None:
    if finished.run.parameters.use_4bit:
        pytest.skip("What it computes on 4 bits is another thing on all of them.")
    config: Any = LoraConfig.from_pretrained(str(finished.folder / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(finished.base)
    before = logits_of(base)
    loaded: Any = PeftModel.from_pretrained(base, str(finished.folder / "adapter"))
    torch.testing.assert_close(logits_of(loaded), finished.logits, rtol=1e-3, atol=1e-4)
    assert (finished.logits - before).abs().max() > 0.05
    with loaded.disable_adapter():
        torch.testing.assert_close(logits_of(loaded), before)
    merged = merge_layers(loaded, torch.float32)
    torch.testing.assert_close(logits_of(merged), finished.logits, rtol=1e-3, atol=1e-4)
    merged.save_pretrained(finished.folder / "merged")
    again = AutoModelForCausalLM.from_pretrained(finished.folder / "merged")
    torch.testing.assert_close(logits_of(again), finished.logits, rtol=1e-3, atol=1e-4)
    assert again.config.tie_word_embeddings == ("tied" in finished.kind)
    if finished.kind in TAKES_OFF:
        assert (config.init_lora_weights, config.r) == (True, 16)


def test_an_attempt_that_goes_on_learns_what_the_one_before_would_have(finished: Finished) -> None:
    resumed = Run(finished.base, finished.folder, resumes=True, **KINDS[finished.kind])
    losses = resumed.train(finished.folder / "checkpoints" / "checkpoint-4")
    assert losses[4:] == pytest.approx(finished.losses[4:], rel=1e-5)
    if not finished.run.parameters.use_4bit:
        torch.testing.assert_close(logits_of(resumed.model), finished.logits, rtol=1e-3, atol=1e-4)


def test_an_attempt_takes_off_what_was_kept_and_nothing_else(bases: dict[bool, Path], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"init_lora_weights": "pissa_niter_2", "lora_alpha": 8}
    first = Run(bases[False], tmp_path, **asked)
    kept = tmp_path / "checkpoints" / "initial_adapter" / "initial.safetensors"
    numbers = load_file(kept)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    # another decomposition, as of another device or release
    altered = {name: values * 1.25 for name, values in numbers.items()}
    save_file(altered, kept)
    second = Run(bases[False], tmp_path, resumes=True, **asked)
    whole = AutoModelForCausalLM.from_pretrained(bases[False]).model.layers[0].self_attn.q_proj.weight
    for run, halves in ((first, numbers), (second, altered)):
        adapter: Any = run.model.get_submodule(layer)
        part = halves[f"{layer}.lora_B"] @ halves[f"{layer}.lora_A"]
        torch.testing.assert_close(adapter.base_layer.weight, whole - part)
        torch.testing.assert_close(adapter.lora_A["default"].weight, halves[f"{layer}.lora_A"])
    assert load_file(kept)[f"{layer}.lora_A"].equal(altered[f"{layer}.lora_A"])
    kept.unlink()
    with pytest.raises(ModelUnavailable, match=r"initial\.safetensors is gone"):
        Run(bases[False], tmp_path, resumes=True, **asked)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_what_no_layer_has_a_part_for_is_refused(bases: dict[bool, Path], tmp_path: Path) -> None:
    with pytest.raises(ConflictingParameters, match="has a rank of 32 at most"):
        Run(bases[False], tmp_path / "rank", init_lora_weights="pissa", lora_r=33)
    with pytest.raises(ConflictingParameters, match="holds its weight transposed"):
        Run(build_tiny(tmp_path / "gpt2", "gpt2"), tmp_path / "turned", init_lora_weights="olora", lora_r=4)


def test_what_is_trained_whole_and_has_no_part_in_the_loss_is_refused(bases: dict[bool, Path], tmp_path: Path) -> None:
    run = Run(bases[False], tmp_path, modules_to_save=("lm_head",))
    with pytest.raises(NotTrainedWhole, match="lm_head has no part"):
        check_all_learn(run.model)  # as if nothing had gone through it
