"""OpenAI's own client, against a server as a user starts it, and a real training of a tiny model."""

import time
from pathlib import Path

import openai
import pytest
from support.running_server import RECORDS, real_server
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.slow]


def test_a_model_is_trained_by_the_stock_client_alone(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    server = real_server(tmp_path)
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            file = client.files.create(file=("train.jsonl", RECORDS), purpose="fine-tune")
            job = client.fine_tuning.jobs.create(
                model=str(model),
                training_file=file.id,
                suffix="tuned",
                seed=1,
                extra_body={"modelforge": {"max_steps": 2, "save_steps": 1, "lora_r": 2}},
            )
            while (job := client.fine_tuning.jobs.retrieve(job.id)).status in {"queued", "running"}:
                time.sleep(0.1)
            assert job.status == "succeeded", job.error
            assert job.hyperparameters.learning_rate_multiplier == 1
            assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job.id)] == [2, 1]
            losses = [one.data for one in client.fine_tuning.jobs.list_events(job.id) if one.type == "metrics"]
            assert len(losses) == 2
            assert job.fine_tuned_model is not None
            assert client.models.retrieve(job.fine_tuned_model).id in {one.id for one in client.models.list()}
            assert client.models.delete(job.fine_tuned_model).deleted
            assert client.files.delete(file.id).deleted
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve(job.fine_tuned_model)
    finally:
        server.end()
