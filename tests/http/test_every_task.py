"""A job of every task and strategy is accepted with the records and the model that are made for it."""

import json
from pathlib import Path

import pytest
from support.attempt_files import write_model
from support.running_server import RECORDS, RunningServer

QUESTION = b'{"context": "It is 1843.", "question": "When?", "answers": {"text": ["1843"], "answer_start": [6]}}\n'
SUMMARY = b'{"document": "A long text", "summary": "Short"}\n'
PREFERENCE = b'{"prompt": "Say it", "chosen": "Good", "rejected": "Bad"}\n'
CAUSAL = {"architectures": ["LlamaForCausalLM"]}
ENCODER = {"architectures": ["BertForMaskedLM"]}
ENCODER_DECODER = {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}


@pytest.fixture
def data_dir(module_data_dir: Path) -> Path:
    return module_data_dir


@pytest.fixture
def server(module_server: RunningServer) -> RunningServer:
    return module_server


@pytest.mark.parametrize(
    ("task", "strategy", "content", "config"),
    [
        ("text-generation", "qlora", RECORDS, CAUSAL),
        ("text-generation", "dpo", PREFERENCE, CAUSAL),
        ("text-generation", "rlhf", PREFERENCE, CAUSAL),
        ("text-generation", "sft", RECORDS, {}),
        ("summarization", "sft", SUMMARY, CAUSAL),
        ("summarization", "sft", RECORDS, ENCODER_DECODER),
        ("summarization", "dpo", PREFERENCE, CAUSAL),
        ("extractive-question-answering", "sft", QUESTION, ENCODER),
        ("extractive-question-answering", "qlora", QUESTION, ENCODER),
    ],
)
def test_a_task_and_a_strategy_reach_the_trainer(
    server: RunningServer, data_dir: Path, tmp_path: Path, task: str, strategy: str, content: bytes, config: object
) -> None:
    server.upload(content, task=task, strategy=strategy).raise_for_status()
    body = {
        "task": task,
        "strategy": strategy,
        "model_name": str(write_model(tmp_path / "model", config)),
        "dataset": "data.jsonl",
        "output_name": "completes",
    }
    job_id = server.post("/api/start_training", body).json()["job_id"]
    assert server.wait_for(job_id)["status"] == "completed"
    spec = json.loads((data_dir / "jobs" / job_id / "attempt-1" / "spec.json").read_bytes())["job"]
    assert (spec["task"], spec["strategy"]) == (task, strategy)


@pytest.mark.parametrize(
    ("task", "strategy", "content", "config", "says"),
    [
        ("text-generation", "sft", RECORDS, ENCODER, "BertForMaskedLM"),
        ("text-generation", "sft", RECORDS, ENCODER_DECODER, "T5ForConditionalGeneration"),
        ("summarization", "dpo", PREFERENCE, ENCODER_DECODER, "sft or qlora"),
        ("extractive-question-answering", "sft", QUESTION, ENCODER_DECODER, "only encodes"),
        ("extractive-question-answering", "sft", QUESTION, CAUSAL, "use an encoder"),
    ],
)
def test_a_model_that_cannot_learn_the_task_starts_nothing(
    server: RunningServer, tmp_path: Path, task: str, strategy: str, content: bytes, config: object, says: str
) -> None:
    server.upload(content).raise_for_status()
    folder = write_model(tmp_path / "model", config)
    body = {"task": task, "strategy": strategy, "model_name": str(folder), "dataset": "data.jsonl"}
    before = server.get("/api/jobs").json()["jobs"]
    answer = server.post("/api/start_training", body)
    assert (answer.status_code, answer.json()["field"]) == (400, "model_name")
    assert says in answer.json()["detail"]
    assert server.get("/api/jobs").json()["jobs"] == before


def test_a_reward_model_is_looked_up_as_the_model_is(server: RunningServer, data_dir: Path, tmp_path: Path) -> None:
    server.upload(PREFERENCE).raise_for_status()
    judge = write_model(tmp_path / "judge", {"architectures": ["LlamaForSequenceClassification"]})
    (tmp_path / "link").symlink_to(judge)
    body = {
        "task": "text-generation",
        "strategy": "rlhf",
        "model_name": str(write_model(tmp_path / "model", CAUSAL)),
        "dataset": "data.jsonl",
        "output_name": "completes",
    }
    refused = server.post("/api/start_training", {**body, "reward_model": str(tmp_path / "none")})
    assert refused.status_code == 404
    assert "reward_model" in refused.json()["detail"]
    job_id = server.post("/api/start_training", {**body, "reward_model": str(tmp_path / "link")}).json()["job_id"]
    assert server.wait_for(job_id)["status"] == "completed"
    spec = json.loads((data_dir / "jobs" / job_id / "attempt-1" / "spec.json").read_bytes())["job"]
    assert spec["reward_model_path"] == str(judge)
