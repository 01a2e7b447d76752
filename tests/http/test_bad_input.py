"""What cannot be used is refused by field, before anything is started, and leaves nothing behind."""

import importlib.util
import json
from pathlib import Path

import pytest
from support.running_server import RECORDS, RunningServer

GOOD = {"task": "text-generation", "dataset": "data.jsonl"}


@pytest.fixture
def data_dir(module_data_dir: Path) -> Path:
    return module_data_dir


@pytest.fixture
def server(module_server: RunningServer) -> RunningServer:
    return module_server


@pytest.fixture(scope="module")
def uploaded(module_server: RunningServer) -> None:
    module_server.upload(RECORDS).raise_for_status()


@pytest.fixture
def body(uploaded: None, model_folder: Path) -> dict[str, object]:
    return {**GOOD, "model_name": str(model_folder)}


def kept_by(server: RunningServer, data_dir: Path) -> tuple[object, set[str]]:
    return server.get("/api/datasets").json(), {file.name for file in (data_dir / "datasets").iterdir()}


def nothing_was_started(server: RunningServer, data_dir: Path) -> None:
    assert server.get("/api/jobs").json()["jobs"] == []
    assert list((data_dir / "jobs").iterdir()) == []
    assert list((data_dir / "tmp").iterdir()) == []
    assert {event["type"] for event in server.get("/api/events").json()["events"]} <= {
        "RegisterDataset",
        "DatasetUploaded",
    }


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"num_epochs": 3}, "num_epochs", "num_train_epochs"),
        ({"learning_rte": 1e-4}, "learning_rte", "learning_rate"),
        ({"num_train_epochs": "three"}, "num_train_epochs", "a number above 0"),
        ({"num_train_epochs": 0}, "num_train_epochs", "above 0"),
        ({"max_steps": 1.5}, "max_steps", "a whole number"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size", "from 1"),
        ({"target_modules": [1]}, "target_modules[0]", "a text of 1 to 200"),
        ({"lora_dropout": 1.0}, "lora_dropout", "below 1"),
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type", "cosine"),
        ({"task": "translation"}, "task", "summarization"),
        ({"task": None}, "task", "text-generation"),
        ({"provider": "openai"}, "provider", "huggingface"),
        ({"strategy": "ppo"}, "strategy", "qlora"),
        ({"strategy": "dpo"}, "dataset", "preferences"),
        ({"task": "extractive-question-answering"}, "model_name", "an encoder, such as BERT"),
        ({"task": "extractive-question-answering", "provider": "unsloth"}, "provider", "causal models only"),
        ({"provider": "unsloth", "max_seq_length": -1}, "max_seq_length", "2048"),
        ({"beta": 0.1}, "beta", "dpo"),
        ({"strategy": "rlhf", "num_generations": 3}, "num_generations", "2 or 4"),
        ({"strategy": "rlhf", "reward_model": "no such model!"}, "reward_model", "owner/name"),
        ({"strategy": "dpo", "task": "extractive-question-answering"}, "strategy", "do not go together"),
        ({"use_4bit": True, "use_8bit": True, "strategy": "qlora"}, "use_4bit", "use_8bit"),
        ({"use_4bit": True}, "use_4bit", "qlora"),
        ({"strategy": "qlora", "use_lora": False}, "use_lora", "sft"),
        ({"bf16": True, "fp16": True}, "bf16", "fp16"),
        ({"eval_steps": 5}, "eval_steps", "eval_split"),
        ({"max_seq_length": 0}, "max_seq_length", "maximum"),
        ({"provider": "unsloth", "num_processes": 2}, "num_processes", "one process"),
        ({"output_name": "../../etc/passwd"}, "output_name", "regex"),
        ({"model_name": "no such model!"}, "model_name", "owner/name"),
        ({"queue": "yes"}, "queue", "true or false"),
    ],
)
def test_a_setting_that_cannot_work_is_a_400_that_names_it(
    server: RunningServer, data_dir: Path, body: dict[str, object], changed: dict[str, object], field: str, says: str
) -> None:
    answer = server.post("/api/start_training", {**body, **changed})
    problem = answer.json()
    assert answer.status_code == problem["status_code"] == 400, problem
    assert problem["field"] == field
    assert says in problem["error"] + problem["detail"]
    nothing_was_started(server, data_dir)


@pytest.mark.skipif(importlib.util.find_spec("unsloth") is not None, reason="unsloth is installed")
def test_a_provider_that_is_not_installed_says_how_to_install_it(
    server: RunningServer, data_dir: Path, body: dict[str, object]
) -> None:
    answer = server.post("/api/start_training", {**body, "provider": "unsloth"})
    assert (answer.status_code, answer.json()["field"]) == (400, "provider")
    assert "make setup-unsloth" in answer.json()["detail"]
    nothing_was_started(server, data_dir)


@pytest.mark.parametrize("missing", ["task", "model_name", "dataset"])
def test_a_missing_field_is_named(server: RunningServer, data_dir: Path, body: dict[str, object], missing: str) -> None:
    del body[missing]
    answer = server.post("/api/start_training", body)
    assert answer.status_code == 400
    assert answer.json()["field"] == missing
    nothing_was_started(server, data_dir)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"task": NaN}', b"\xff", b'"text"'])
def test_a_body_that_is_no_object_is_a_400(server: RunningServer, text: bytes) -> None:
    answer = server.post("/api/start_training", data=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()) >= {"error", "detail", "status_code"}


def test_a_dataset_that_is_not_there_is_a_404(server: RunningServer, data_dir: Path, body: dict[str, object]) -> None:
    for name in ("other.jsonl", str(data_dir.parent / "nowhere.jsonl"), "../data.jsonl"):
        answer = server.post("/api/start_training", {**body, "dataset": name})
        assert answer.status_code == 404
        assert "dataset" in answer.json()["detail"]
    nothing_was_started(server, data_dir)


def test_a_dataset_by_path_is_read_under_the_roots_only(
    server: RunningServer, data_dir: Path, body: dict[str, object], tmp_path: Path
) -> None:
    outside = tmp_path / "link.jsonl"
    outside.symlink_to("/etc/passwd")
    for name in ("/etc/passwd", str(outside), f"{tmp_path}/../../../etc/passwd", "/dev/zero"):
        answer = server.post("/api/start_training", {**body, "dataset": name})
        assert answer.status_code == 400, name
        assert "dataset-root" in answer.json()["detail"]
    for name in (str(tmp_path), str(data_dir)):
        answer = server.post("/api/start_training", {**body, "dataset": name})
        assert (answer.status_code, answer.json()["error"]) == (400, "The dataset is no regular file")
    nothing_was_started(server, data_dir)


def test_the_records_of_a_dataset_by_path_are_checked_first(
    server: RunningServer, data_dir: Path, body: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(RECORDS + b'{"input": "a"}\n')
    answer = server.post("/api/start_training", {**body, "dataset": str(path)})
    assert answer.status_code == 400
    assert answer.json()["validation"]["errors"][0]["line"] == 21
    nothing_was_started(server, data_dir)


@pytest.mark.parametrize(
    ("files", "status", "says"),
    [
        ({"config.json": "{}", "pytorch_model.bin": "x"}, 400, "pytorch_model.bin"),
        ({"config.json": "{}", "model.safetensors": "", "weights.pkl": "x"}, 400, "weights.pkl"),
        ({"config.json": '{"auto_map": {"AutoModel": "x.Y"}}', "model.safetensors": ""}, 400, "auto_map"),
        (
            {"config.json": "{}", "tokenizer_config.json": '{"auto_map": {"T": "x"}}', "model.safetensors": ""},
            400,
            "tokenizer_config.json",
        ),
        ({"config.json": '{"is_encoder_decoder": true}', "model.safetensors": ""}, 400, "encoder-decoder"),
        ({"config.json": '{"architectures": ["BertForMaskedLM"]}', "model.safetensors": ""}, 400, "BertForMaskedLM"),
        ({"config.json": "{", "model.safetensors": ""}, 400, "config.json"),
        ({"model.safetensors": ""}, 400, "config.json"),
        ({"config.json": "{}"}, 400, "safetensors"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": ""}, 400, "adapter"),
    ],
)
def test_a_model_folder_that_must_not_be_loaded_is_refused_by_name(
    server: RunningServer,
    data_dir: Path,
    body: dict[str, object],
    tmp_path: Path,
    files: dict[str, str],
    status: int,
    says: str,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    answer = server.post("/api/start_training", {**body, "model_name": str(folder)})
    assert answer.status_code == status
    assert says in answer.json()["error"] + answer.json()["detail"]
    assert answer.json()["field"] == "model_name"
    nothing_was_started(server, data_dir)


def test_a_model_that_is_not_there_is_a_404(server: RunningServer, data_dir: Path, body: dict[str, object]) -> None:
    for name in (str(data_dir.parent / "none"), "nobody/no-such-model"):
        answer = server.post("/api/start_training", {**body, "model_name": name})
        assert answer.status_code == 404
        assert name in answer.json()["detail"]
    outside = server.post("/api/start_training", {**body, "model_name": "/usr"})
    assert (outside.status_code, outside.json()["field"]) == (400, "model_name")
    nothing_was_started(server, data_dir)


@pytest.mark.parametrize(
    ("content", "line", "field"),
    [
        (b'{"input": "a", "output": null}\n', 1, "output"),
        (b'{"input": "a", "output": "b"}\n{"input": "a"}\n', 2, "output"),
        (b'{"input": "a", "output": "b"}\n\n{"input": "a", "output": " "}', 3, "output"),
        (b'{"input": "a", "output": "b"}\n{broken\n', 2, None),
        (b'{"input": "a", "output": "b"}\n[1]\n', 2, None),
        (b'{"input": "a", "output": "\xc3\xa9t\xc3\xa9 \xff"}\n', 1, None),
        (b'{"question": "a"}\n', 1, None),
        (b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n', 1, "rejected"),
        (b'{"input": "a", "output": "b"}\n{"messages": []}\n', 2, None),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', 1, "messages"),
        (b'{"messages": [{"role": "robot", "content": "a"}]}\n', 1, "messages[0].role"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}\n', 1, "messages"),
        (b'{"messages": [{"role": "user"}]}\n', 1, "messages[0].content"),
        (b'{"messages": []}\n', 1, "messages"),
        (b"", 1, None),
        (b"\n\n", 2, None),
    ],
)
def test_a_fault_in_a_dataset_is_named_by_line_and_field(
    server: RunningServer, data_dir: Path, content: bytes, line: int, field: str | None
) -> None:
    before = kept_by(server, data_dir)
    answer = server.upload(content)
    problem = answer.json()
    assert answer.status_code == problem["status_code"] == 400
    assert not problem["validation"]["valid"]
    assert problem["validation"]["errors"][0]["line"] == line
    assert problem["validation"]["errors"][0]["field"] == field
    assert problem["validation"]["error_count"] >= 1
    assert kept_by(server, data_dir) == before
    assert list((data_dir / "tmp").iterdir()) == []


def test_the_first_hundred_faults_are_listed_and_all_are_counted(server: RunningServer) -> None:
    validation = server.upload(b'{"input": "a"}\n' * 250).json()["validation"]
    assert len(validation["errors"]) == 100
    assert validation["error_count"] == 250


def test_a_form_that_is_none_is_a_400(server: RunningServer) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=b"}
    for data in (b"", b"nothing", b"--b--", b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'):
        answer = server.post("/api/upload_dataset", data=data, headers=head)
        assert answer.status_code == 400, data
        assert answer.json()["status_code"] == 400
    no_boundary = server.post("/api/upload_dataset", data=b"x", headers={"Content-Type": "multipart/form-data"})
    assert no_boundary.status_code == 400
    nothing = server.post("/api/upload_dataset", headers={"Idempotency-Key": "k"})
    assert (nothing.status_code, nothing.json()["field"]) == (400, "file")
    assert server.upload(RECORDS, filename="/").status_code == 400
    assert server.upload(RECORDS, task="poetry").json()["field"] == "task"
    assert server.upload(RECORDS, strategy="ppo").json()["field"] == "strategy"
    assert server.upload(RECORDS, strategy="dpo", task="extractive-question-answering").json()["field"] == "strategy"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"model_id": "one"}, "model_id"),
        ({"model_id": 1, "base_model": "smollm2-135m-instruct"}, "base_model"),
        ({"task": "translation"}, "task"),
        ({"context": "Rice is rinsed."}, "context"),  # nothing was trained for question answering
        ({"context": "Rice is rinsed.", "task": "summarization"}, "context"),
        ({"context": "", "task": "extractive-question-answering"}, "context"),
        ({"task": "extractive-question-answering"}, "task"),
        ({"context": "Rice.", "task": "text-generation", "base_model": "smollm2-135m-instruct"}, "context"),
        ({"task": "extractive-question-answering", "base_model": "smollm2-135m-instruct"}, "context"),
        ({"context": " \n", "base_model": "smollm2-135m-instruct"}, "context"),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_refused(
    server: RunningServer, changed: dict[str, object], field: str
) -> None:
    answer = server.post("/api/playground/generate", {"prompt": "Hello", **changed})
    assert answer.status_code == 400
    assert answer.json()["field"] == field


def test_what_is_not_there_is_a_404(server: RunningServer) -> None:
    for path in ("/api/models/1", "/api/models/x", "/api/jobs/train_000001", "/api/jobs/x/metrics", "/api/jobs/x/logs"):
        assert server.get(path).status_code == 404, path
    assert server.delete("/api/models/7").status_code == 404
    assert server.post("/api/playground/generate", {"prompt": "x", "model_id": 9}).status_code == 404
    assert server.post("/api/stop_training").status_code == 409
    assert server.post("/api/jobs/x/stop").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["/api/jobs?limit=0", "/api/jobs?status=happy", "/api/jobs?after=x", "/api/events?after=-1", "/api/events?limit=x"],
)
def test_a_query_that_cannot_be_used_is_a_400(server: RunningServer, query: str) -> None:
    assert server.get(query).status_code == 400


def test_shell_characters_in_every_field_are_only_characters(
    server: RunningServer, data_dir: Path, body: dict[str, object], tmp_path: Path
) -> None:
    evil = "$(touch pwned); `touch pwned` | & > pwned \n '\""
    answer = server.upload(RECORDS, filename="a$(touch pwned);b.jsonl")
    assert answer.json()["filename"] == "a$(touch pwned);b.jsonl"
    for field in ("model_name", "dataset", "output_name", "target_modules"):
        changed = server.post("/api/start_training", {**body, field: evil}) if field != "target_modules" else None
        assert changed is None or changed.status_code in {400, 404}
    assert not list(tmp_path.rglob("pwned"))
    assert json.dumps(server.get("/api/jobs").json()["jobs"]) == "[]"
    assert list((data_dir / "jobs").iterdir()) == []
