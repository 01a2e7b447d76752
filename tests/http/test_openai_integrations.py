"""What OpenAI's `integrations` come to: the tracker, and what its run is called."""

from typing import Any

import msgspec
import pytest

from modelforge.errors import BadInput
from modelforge.http.openai.fine_tuning_body import FineTuningBody
from modelforge.http.openai.fine_tuning_job import integrations_of
from modelforge.http.openai.fine_tuning_request import training_of
from modelforge.http.openai.identifiers import file_id
from modelforge.projections.datasets import DatasetSummary
from trainer_entry.wire import TrainingParameters

FILE = DatasetSummary(
    filename="a.jsonl",
    num_examples=20,
    size_mb=0.1,
    uploaded_at="2026-11-30T00:00:00+00:00",
    format="input_output",
    sha256="0" * 64,
    revision=1,
)


def asked(wandb: dict[str, Any], **beside: Any) -> Any:
    body = {
        "model": "base",
        "training_file": file_id(FILE.filename, FILE.revision),
        "integrations": [{"type": "wandb", "wandb": wandb}],
        **beside,
    }
    return training_of(msgspec.convert(body, FineTuningBody), {FILE.filename: FILE}, {})


def test_a_run_at_wandb_has_the_project_the_name_and_the_tags_that_were_sent() -> None:
    plain = asked({"project": "desk"})
    assert (plain.report_to, plain.tracker_project, plain.tracker_run, plain.tracker_tags) == (
        "wandb",
        "desk",
        None,
        None,
    )
    whole = asked({"project": "desk", "name": "third", "tags": ["night", "long"]})
    assert (whole.tracker_run, whole.tracker_tags) == ("third", ("night", "long"))


def test_whose_the_run_is_and_another_tracker_beside_it_are_refused_by_name() -> None:
    with pytest.raises(BadInput) as entity:
        asked({"project": "desk", "entity": "us"})
    assert entity.value.field == "integrations[0].wandb.entity"
    with pytest.raises(BadInput) as twice:
        asked({"project": "desk"}, modelforge={"report_to": "trackio"})
    assert twice.value.field == "integrations"
    with pytest.raises(msgspec.ValidationError, match="type"):
        msgspec.convert({"model": "m", "training_file": "f", "integrations": [{"type": "mlflow"}]}, FineTuningBody)


def test_a_job_says_what_was_sent() -> None:
    sent = {"project": "desk", "name": "third", "tags": ["night", "long"]}
    assert msgspec.to_builtins(integrations_of(asked(sent))) == (
        {"type": "wandb", "wandb": {**sent, "entity": None, "tags": ("night", "long")}},
    )
    assert integrations_of(TrainingParameters(report_to=("wandb", "mlflow"))) == ()
    assert integrations_of(TrainingParameters(report_to="mlflow", tracker_project="desk")) == ()
