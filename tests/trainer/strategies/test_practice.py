"""The step that a trainer makes while it stands by: it is one, and nothing of it is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_it_is_a_whole_step_of_which_nothing_is_left(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.state import AcceleratorState
    from transformers.utils.logging import warning_once

    from trainer_entry.strategies import practice

    made: list[Any] = []
    build = practice.build_trainer
    monkeypatch.setattr(practice, "build_trainer", lambda *given: made.append(build(*given)) or made[-1])
    folder = Path(practice.__file__).parent
    before = sorted(folder.iterdir()), dict(os.environ)
    practice.practise()
    assert capfd.readouterr() == ("", "")
    (trainer,) = made
    assert trainer.state.global_step == 1
    assert trainer.has_loss_head
    assert (sorted(folder.iterdir()), dict(os.environ)) == before
    assert AcceleratorState._shared_state == {}  # noqa: SLF001 - accelerate has no other way
    assert warning_once.cache_info().currsize == 0  # type: ignore[attr-defined]


def test_one_that_fails_is_noted_and_the_trainer_stands_by_all_the_same(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer_entry.strategies import practice

    def fails(*_: object) -> None:
        raise ValueError("another release of a library")

    monkeypatch.setattr(practice, "build_trainer", fails)
    practice.practise()
    assert "ValueError: another release of a library" in capfd.readouterr().err


def test_where_there_is_a_gpu_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from trainer_entry.strategies import practice

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(practice, "_make_step", lambda: pytest.fail("a step was made"))
    practice.practise()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of transformers, by peft
def test_what_torch_compile_is_to_join_is_left_as_it_is() -> None:
    import msgspec
    from peft.tuners.lora import Linear

    from trainer_entry.strategies import practice

    def layers(*, torch_compile: bool) -> set[bool]:
        job = practice._job()  # noqa: SLF001 - of a model of a few numbers
        asked = msgspec.structs.replace(job.parameters, torch_compile=torch_compile)
        trainer: Any = practice._trainer_for(msgspec.structs.replace(job, parameters=asked))  # noqa: SLF001
        assert trainer.has_loss_head != torch_compile
        return {"forward" in vars(module) for module in trainer.model.modules() if isinstance(module, Linear)}

    assert (layers(torch_compile=False), layers(torch_compile=True)) == ({True}, {False})
