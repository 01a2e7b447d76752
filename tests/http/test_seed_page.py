"""The first page of the API, path by path and field by field, with a real training of a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import requests
from support.running_server import RunningServer, forked_real_server
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]

RECORDS = "".join(json.dumps({"input": f"What is {n}?", "output": f"{n} is a number."}) + "\n" for n in range(64))


class Trained:
    """A server on which one job ran to its end."""

    def __init__(
        self, server: RunningServer, model: Path, started: dict[str, object], upload: requests.Response
    ) -> None:
        self.server = server
        self.model = model
        self.started = started
        self.upload = upload
        self.job = server.wait_for(str(started["job_id"]), seconds=240)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("seed")
    model = build_tiny_model(folder / "Tiny_Llama-1.0")
    server = forked_real_server(folder)
    upload = server.upload(RECORDS.encode(), "dataset.jsonl")
    # The page's own example, with a model and a dataset that are here.
    response = requests.post(
        server.url + "/api/start_training",
        json={
            "task": "text-generation",
            "model_name": str(model),
            "provider": "huggingface",
            "strategy": "sft",
            "dataset": "dataset.jsonl",
            "max_seq_length": 64,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "eval_split": 0.125,
            "logging_steps": 1,
        },
        timeout=60,
    )
    assert response.status_code == 200, response.text
    yield Trained(server, model, response.json(), upload)
    server.end()


def has(answer: dict[str, object], **types: type | tuple[type, ...]) -> None:
    for name, kind in types.items():
        assert isinstance(answer[name], kind), f"{name} is {answer[name]!r}"


def test_info(trained: Trained) -> None:
    answer = trained.server.get("/api/info").json()
    assert answer["providers"] == ["huggingface", "unsloth"]
    assert answer["strategies"] == ["sft", "qlora", "rlhf", "dpo"]
    assert answer["tasks"] == ["text-generation", "summarization", "extractive-question-answering"]
    assert answer["version"] == "v2"


def test_health(trained: Trained) -> None:
    assert trained.server.get("/api/health").json() == {"status": "healthy", "version": "v2"}


def test_start_training(trained: Trained) -> None:
    assert trained.started["status"] == "started"
    assert trained.started["message"] == "Training started successfully"
    assert str(trained.started["job_id"]).removeprefix("train_").isdigit()
    assert len(str(trained.started["job_id"])) == len("train_123456")


def test_training_status(trained: Trained) -> None:
    answer = trained.server.get("/api/training_status").json()
    has(answer, status=str, progress=float, current_epoch=int, total_epochs=int, current_step=int, total_steps=int)
    has(answer, loss=float, learning_rate=float)
    assert (answer["status"], answer["progress"]) == ("completed", 100.0), answer["error"]
    assert (answer["current_epoch"], answer["total_epochs"]) == (2, 2)
    assert (answer["current_step"], answer["total_steps"]) == (28, 28)


def test_every_step_is_there_once(trained: Trained) -> None:
    metrics = trained.server.get(f"/api/jobs/{trained.started['job_id']}/metrics").json()["metrics"]
    assert [metric["step"] for metric in metrics] == list(range(1, 29))
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_upload_dataset(trained: Trained) -> None:
    answer = trained.upload.json()
    assert trained.upload.status_code == 200
    assert (answer["status"], answer["filename"], answer["num_examples"]) == ("uploaded", "dataset.jsonl", 64)
    assert answer["validation"]["valid"] is True
    assert answer["validation"]["errors"] == []


def test_datasets(trained: Trained) -> None:
    (answer,) = trained.server.get("/api/datasets").json()["datasets"]
    has(answer, filename=str, num_examples=int, size_mb=float, uploaded_at=str)
    assert answer["uploaded_at"].endswith("Z")


def test_models(trained: Trained) -> None:
    (answer,) = trained.server.get("/api/models").json()["models"]
    has(answer, id=int, name=str, base_model=str, task=str, created_at=str, size_mb=(int, float))
    assert answer["name"] == "my-tiny-llama-1-0-finetuned"


def test_a_model(trained: Trained) -> None:
    answer = trained.server.get("/api/models/1").json()
    has(answer, id=int, name=str, base_model=str, task=str, provider=str, strategy=str, created_at=str)
    has(answer["training_params"], num_epochs=int, batch_size=int, learning_rate=float)
    has(answer["metrics"], final_loss=float, perplexity=float, eval_loss=float)
    assert (answer["training_params"]["num_epochs"], answer["training_params"]["batch_size"]) == (2, 4)
    assert answer["kind"] == "adapter"
    folder = Path(answer["path"])
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_playground(trained: Trained) -> None:
    body = {"prompt": "What is 7?", "max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9}
    for model in ({"model_id": 1}, {"model_id": 1, "base_model": True}, {"model_id": 0}):
        answer = trained.server.post("/api/playground/generate", {**body, **model})
        assert answer.status_code == 200, answer.text
        has(answer.json(), generated_text=str, tokens_generated=int, generation_time_ms=int)
        assert 0 < answer.json()["tokens_generated"] <= 8
    streamed = trained.server.post(
        "/api/playground/generate", {**body, "model_id": 1, "stream": True, "temperature": 0}
    )
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    pieces = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert "".join(piece["text"] for piece in pieces[:-1]) == pieces[-1]["generated_text"]


async def test_the_websocket(trained: Trained) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{trained.server.url}/ws/training") as socket,
    ):
        message = json.loads((await socket.receive(timeout=10)).data)
    has(message, status=str, progress=float, position=int, type=str, at=int)


def test_conflicts_and_what_is_not_there(trained: Trained) -> None:
    for answer, status in (
        (trained.server.post("/api/stop_training"), 409),
        (trained.server.get("/api/models/99"), 404),
        (trained.server.post("/api/start_training", {"task": "text-generation"}), 400),
    ):
        assert (answer.status_code, answer.json()["status_code"]) == (status, status)
        has(answer.json(), error=str, detail=str)


def test_a_job_is_stopped_and_the_model_deleted(trained: Trained) -> None:
    body = {
        "task": "text-generation",
        "model_name": str(trained.model),
        "dataset": "dataset.jsonl",
        "max_steps": 100_000,
    }
    started = trained.server.post("/api/start_training", {**body, "max_steps": 100_000}).json()
    assert trained.server.post("/api/start_training", body).status_code == 409
    trained.server.wait_for(started["job_id"], "training")
    stopped = trained.server.post("/api/stop_training").json()
    assert stopped["status"] == "stopped"
    assert stopped["message"] == "Training stopped successfully"
    job = trained.server.get(f"/api/jobs/{started['job_id']}").json()
    assert Path(job["checkpoint"]).is_dir()
    deleted = trained.server.delete("/api/models/1")
    assert (deleted.status_code, deleted.json()) == (
        200,
        {"status": "deleted", "message": "Model deleted successfully"},
    )
