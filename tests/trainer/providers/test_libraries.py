import gc
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from support.trainer_attempts import job_of

from trainer_entry import wire
from trainer_entry.providers.libraries import hide_all, hide_unused, needs_quantizer
from trainer_entry.runtime.imports import importing

QUANTIZED = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}


def model_of(folder: Path, **config: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return str(folder)


def job(model: str, parameters: dict[str, object] | None = None, **fields: object) -> wire.JobSpec:
    return job_of(msgspec.convert(parameters or {}, wire.TrainingParameters), model_path=model, **fields)


@pytest.mark.parametrize(
    ("parameters", "fields", "needed"),
    [
        ({}, {}, False),
        ({"use_4bit": False}, {}, False),
        ({"use_4bit": True}, {}, True),
        ({"use_8bit": True}, {}, True),
        ({"optim": "adafactor"}, {}, False),
        ({"optim": "adamw_8bit"}, {}, True),
        ({"optim": "paged_adamw_8bit"}, {}, True),
        ({}, {"strategy": "dpo"}, False),
        ({}, {"strategy": "qlora"}, True),
        ({}, {"provider": "unsloth"}, True),
    ],
)
def test_bitsandbytes_is_there_for_who_asks_for_what_it_does(
    tmp_path: Path, parameters: dict[str, object], fields: dict[str, object], *, needed: bool
) -> None:
    assert needs_quantizer(job(model_of(tmp_path / "model"), parameters, **fields)) == needed


def test_it_is_there_for_a_model_that_is_or_may_be_quantized(tmp_path: Path) -> None:
    plain, quantized = model_of(tmp_path / "plain"), model_of(tmp_path / "quantized", **QUANTIZED)
    assert needs_quantizer(job(quantized))
    assert needs_quantizer(job(plain, strategy="rlhf", reward_model_path=quantized))
    assert needs_quantizer(job("owner/of-the-hub"))
    assert not needs_quantizer(job(wire.BUILT_IN_MODEL))
    assert not needs_quantizer(job(plain, strategy="rlhf", reward_model_path=plain))


def test_what_is_not_needed_is_not_found_and_what_is_imported_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bitsandbytes", "wandb", "mlflow", "trackio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    hide_unused(job(model_of(tmp_path / "quantized", **QUANTIZED)))
    assert sys.modules["wandb"] is None
    assert find_spec("bitsandbytes") is not None
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    hide_all()
    assert find_spec("bitsandbytes") is None
    assert sys.modules["mlflow"] is sys


def test_garbage_is_looked_for_again_after_an_import_that_failed() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise ModuleNotFoundError

    before = gc.get_freeze_count()
    with pytest.raises(ModuleNotFoundError), importing():
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    gc.unfreeze()
