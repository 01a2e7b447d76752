from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from support.tiny_model import build_tiny_model
from support.trainer_attempts import questions, write_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.wire import DatasetFile


torch.set_num_threads(1)  # the trainers that the tests start need the processor too


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFile:
    return write_dataset(tmp_path_factory.mktemp("data") / "questions.jsonl", questions(64))
