"""A trained model can be saved, which is found out before it is trained; and plain libraries end its turns."""

from __future__ import annotations

import json
import shutil
import types
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from support.small_disk import small_disk
from support.tiny_model import CHATML, build_tiny, build_tiny_model
from support.trainer_attempts import Attempt, job_of
from transformers import AutoTokenizer, GenerationConfig

from trainer_entry import wire
from trainer_entry.artifacts import save
from trainer_entry.artifacts.rehearsal import rehearse_merged, rehearse_saving
from trainer_entry.data.examples import Examples
from trainer_entry.data.generation_settings import settle_generation
from trainer_entry.data.prompts import prompt_ids
from trainer_entry.providers import huggingface
from trainer_entry.runtime.claim import CLAIM_VARIABLE, REVOKED, ClaimLost, claim_of, take_claim
from trainer_entry.runtime.disk import DiskFull
from trainer_entry.runtime.failures import CannotBeSaved, ModelUnavailable
from trainer_entry.strategies import sft
from trainer_entry.training.defaults import resolve_parameters, with_model

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.training.trainer import AttemptTrainer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "top_k": 20}


def with_settings(base: Path, folder: Path, **settings: Any) -> Path:
    """A copy of a model with another `generation_config.json`."""
    shutil.copytree(base, folder)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def settled(folder: Path) -> LoadedModel:
    loaded = huggingface.load(str(folder), torch.float32, None)
    settle_generation(loaded.model, loaded.tokenizer)
    return loaded


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (SAMPLING, {**SAMPLING, "do_sample": True}),
        ({**SAMPLING, "do_sample": True}, {**SAMPLING, "do_sample": True}),
        ({**SAMPLING, "do_sample": False}, {"do_sample": False}),
        ({"temperature": 0.0, "top_p": 0.9}, {}),
        ({"num_beams": 4, "early_stopping": True, "top_k": 5}, {"num_beams": 4, "early_stopping": True}),
        ({"early_stopping": True, "length_penalty": 2.0}, {}),
        ({"use_cache": False, "cache_implementation": "static"}, {"use_cache": False}),
        ({"output_scores": True}, {}),
        ({"pad_token_id": -1}, {}),
    ],
)
def test_generation_settings_are_saved_as_what_they_mean(
    settings: dict[str, Any], kept: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    loaded = settled(with_settings(tiny_model, tmp_path / "model", **settings))
    loaded.model.config.pad_token_id = 0
    loaded.model.generation_config.max_length = 77  # transformers checks only what was changed
    loaded.model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {name: value for name, value in saved.items() if name in settings or name == "do_sample"} == kept


def test_settings_in_the_config_of_an_old_model_are_saved_too(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").unlink()
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, **SAMPLING}))
    loaded = settled(tmp_path / "model")
    loaded.model.generation_config.max_length = 77
    loaded.model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["do_sample"]) == (0.6, True)


def test_settings_that_no_library_takes_are_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = with_settings(tiny_model, tmp_path / "model", num_return_sequences=3)
    with pytest.raises(ModelUnavailable, match=r"generation_config\.json .*num_return_sequences"):
        huggingface.find(str(folder))


@pytest.mark.training
@pytest.mark.parametrize("use_lora", [False, True])
def test_what_is_saved_stops_in_plain_generate_where_the_turn_ends(
    use_lora: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    dataset: wire.DatasetFile,
) -> None:
    # given a base with a chat template, whose turns end by another token than the eos token, and settings of its own
    base = build_tiny_model(tmp_path / "base", chat_template=None)
    (base / "chat_template.jinja").write_text(CHATML)
    (base / "generation_config.json").write_text(json.dumps(SAMPLING))
    tokenizer = AutoTokenizer.from_pretrained(base)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end != tokenizer.eos_token_id
    # when
    attempt = Attempt(tmp_path / "attempt", base, dataset, use_lora=use_lora, max_steps=1)
    assert attempt.wait() == 0, attempt.stderr()
    # then plain libraries load it by the lines of its card, and stop at that token
    found: dict[str, Any] = {}
    card = (attempt.output / "README.md").read_text()
    lines = card.split("```python\n")[1].split("```")[0].replace('"."', repr(str(attempt.output)))
    exec(lines, found)  # noqa: S102 - what the card says to do
    model = found["model"]
    assert end in model.generation_config.eos_token_id
    assert GenerationConfig.from_pretrained(attempt.output).do_sample
    say_always(model, end)
    asked = torch.tensor([prompt_ids(found["tokenizer"], "Why?")])
    written = model.generate(input_ids=asked, attention_mask=torch.ones_like(asked), max_new_tokens=8, pad_token_id=0)
    assert written[0, asked.shape[1] :].tolist() == [end]


def say_always(model: Any, token: int) -> None:
    """Let a model write one token, whatever it reads."""

    def prefer(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        logits = torch.full_like(output, -1e9)
        logits[..., token] = 0
        return logits

    model.get_output_embeddings().register_forward_hook(prefer)


def test_an_encoder_decoder_keeps_its_own_end(tmp_path: Path) -> None:
    loaded = huggingface.load(str(build_tiny(tmp_path / "t5", "t5")), torch.float32, None, "summarization")
    before = loaded.model.generation_config.eos_token_id
    settle_generation(loaded.model, loaded.tokenizer)
    assert loaded.model.generation_config.eos_token_id == before


def trainer_of(base: Path, folder: Path, **parameters: Any) -> tuple[AttemptTrainer, LoadedModel, wire.JobSpec]:
    loaded = settled(base)
    job = job_of(
        wire.TrainingParameters(**parameters), output_dir=str(folder / "output"), checkpoint_dir=str(folder / "saved")
    )
    job_parameters = with_model(resolve_parameters(job), job, loaded.context, encoder_decoder=False)
    rows = Dataset.from_dict({"input_ids": [[1, 2, 3]], "labels": [[-100, 2, 3]], "line": [1]})
    return sft.build_trainer(job, loaded, Examples(rows, None, 3), job_parameters), loaded, job


def rehearse(trainer: AttemptTrainer, loaded: LoadedModel, job: wire.JobSpec) -> None:
    rehearse_saving(trainer, loaded, job, job.parameters)


@pytest.mark.parametrize("use_lora", [False, True])
def test_a_rehearsal_leaves_nothing_and_changes_nothing(
    use_lora: bool,  # noqa: FBT001 - a parameter of the test
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    trainer, loaded, job = trainer_of(tiny_model, tmp_path, use_lora=use_lora)
    rehearse(trainer, loaded, job)
    rehearse_merged(trainer.model, loaded.tokenizer, tmp_path / "output")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("output")]
    model: Any = trainer.model
    model.save_pretrained(tmp_path / "saved")  # weights are written again
    assert list((tmp_path / "saved").glob("*.safetensors"))


def test_what_could_not_be_saved_is_found_before_the_first_step(tiny_model: Path, tmp_path: Path) -> None:
    trainer, loaded, job = trainer_of(tiny_model, tmp_path, use_lora=False)
    # a configuration that is no JSON
    loaded.model.config.odd = {1, 2}
    with pytest.raises(CannotBeSaved, match="set is not JSON serializable"):
        rehearse(trainer, loaded, job)
    del loaded.model.config.odd
    # generation settings that transformers warns of
    loaded.model.generation_config.do_sample, loaded.model.generation_config.top_k = False, 7
    with pytest.raises(CannotBeSaved, match="top_k"):
        rehearse(trainer, loaded, job)
    loaded.model.generation_config.top_k = None
    # weights that share memory, and were not said to
    layers: Any = loaded.model.model.layers
    layers[1].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    with pytest.raises(CannotBeSaved, match="up_proj"):
        rehearse(trainer, loaded, job)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("output")]


def test_a_disk_without_room_for_the_model_is_found_before_the_first_step(tiny_model: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        trainer, loaded, job = trainer_of(tiny_model, disk.path, use_lora=False)
        disk.fill(leave=200_000)
        with pytest.raises(DiskFull, match="no room to save"):
            rehearse(trainer, loaded, job)


@pytest.mark.training
def test_a_training_ends_at_once_whose_model_could_not_be_saved(
    tiny_model: Path, tmp_path: Path, dataset: wire.DatasetFile
) -> None:
    (tmp_path / "attempt").mkdir()
    (tmp_path / "attempt" / "output.rehearsal").write_text("In the way.")
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset)
    assert attempt.wait() == 1
    assert attempt.one(wire.TrainerFailed).kind == "CannotBeSaved"
    assert attempt.of_type(wire.StepLogged) == []


class Publication:
    """A model that is about to be published for an attempt that a mark has claimed; there is an earlier model."""

    def __init__(self, folder: Path, holder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.attempt, self.output = folder / "attempt", folder / "models" / "job"
        for one in (self.attempt, self.output):
            one.mkdir(parents=True)
        (self.output / "model").write_text("earlier")
        assert take_claim(self.attempt, {"mark": holder})
        monkeypatch.setenv(CLAIM_VARIABLE, claim_of(self.attempt, {"mark": "ours"}))
        monkeypatch.setattr(save, "write_model", self._write)
        self.is_revoked_meanwhile = False

    def _write(self, partial: Path, *_rest: object) -> None:
        (partial / "model").write_text("this one")
        if self.is_revoked_meanwhile:
            (self.attempt / REVOKED).touch()

    def publish(self) -> None:
        plain = types.SimpleNamespace(unwrap_model=lambda model: model)
        trainer: Any = types.SimpleNamespace(accelerator=plain, model=None, is_world_process_zero=lambda: True)
        loaded: Any = None
        parameters = wire.TrainingParameters()
        save.save_model(trainer, loaded, job_of(parameters, output_dir=str(self.output)), parameters, {})


def test_a_model_is_published_by_the_holder_of_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Publication(tmp_path, "ours", monkeypatch)
    ours.publish()
    assert (ours.output / "model").read_text() == "this one"


def test_a_model_of_an_attempt_that_others_hold_leaves_theirs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Publication(tmp_path, "theirs", monkeypatch)
    with pytest.raises(ClaimLost, match="its model is not published"):
        theirs.publish()
    assert (theirs.output / "model").read_text() == "earlier"


def test_a_model_of_an_attempt_that_was_given_up_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = Publication(tmp_path, "ours", monkeypatch)
    (revoked.attempt / REVOKED).touch()
    with pytest.raises(ClaimLost):
        revoked.publish()
    assert (revoked.output / "model").read_text() == "earlier"


def test_a_model_of_an_attempt_that_is_given_up_while_it_is_written_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile = Publication(tmp_path, "ours", monkeypatch)
    meanwhile.is_revoked_meanwhile = True
    with pytest.raises(ClaimLost):
        meanwhile.publish()
    assert not meanwhile.output.exists()
