"""Reward functions in a request: as names and as objects, checked, recorded, shown, and repeated as they were."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.attempt_files import write_model
from support.running_server import RunningServer, modelforge, scripted_server

from modelforge.admission import installed
from modelforge.errors import BadInput

CAUSAL = {"architectures": ["LlamaForCausalLM"]}
ASKED = b"".join(b'{"question": "%d + 1?", "answer": "It is %d. #### %d", "level": 3}\n' % (n, n, n) for n in range(8))
PROMPTS = b'{"prompt": "Write a line."}\n' * 4 + b'{"prompt": "Write two."}\n' * 4
FILE = "def brevity(completions, **_):\n    return [1.0 for _ in completions]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rewarded")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[RunningServer]:
    (folder / "rewards").mkdir()
    server = scripted_server(folder / "data", MODELFORGE_REWARD_ROOTS=str(folder / "rewards"))
    server.upload(ASKED, "asked.jsonl").raise_for_status()
    server.upload(PROMPTS, "prompts.jsonl").raise_for_status()
    yield server
    server.end()


@pytest.fixture(scope="module")
def body(folder: Path) -> dict[str, Any]:
    model = write_model(folder / "model", CAUSAL)
    return {
        "task": "text-generation",
        "strategy": "rlhf",
        "model_name": str(model),
        "dataset": "asked.jsonl",
        "output_name": "completes",
    }


def jobs_of(server: RunningServer) -> list[str]:
    return [job["job_id"] for job in server.get("/api/jobs").json()["jobs"]]


def test_they_reach_the_trainer_and_the_record_as_they_were_asked_for_and_are_repeated(
    served: RunningServer, body: dict[str, Any], folder: Path
) -> None:
    file = folder / "rewards" / "mine.py"
    file.write_text(FILE)
    asked = [
        "number_match",
        {"name": "regular_expression", "pattern": r"####\s*(\d+)", "weight": 0.5},
        {"name": "json_schema", "schema": {"type": "object", "properties": {"a": {"enum": [1, None]}}}},
        {"name": "length", "max": 30, "unit": "characters"},
        {"name": "format_tags", "tags": ["plan", "answer"]},
        {"name": "python_file", "path": str(file), "function": "brevity"},
    ]
    started = served.post("/api/start_training", {**body, "reward_functions": asked})
    assert started.status_code == 200, started.text
    job_id = started.json()["job_id"]
    assert served.wait_for(job_id)["status"] == "completed"
    spec = json.loads((folder / "data" / "jobs" / job_id / "attempt-1" / "spec.json").read_bytes())["job"]
    recorded = spec["parameters"]["reward_functions"]
    assert recorded[0] == "number_match"
    assert recorded[1] == {"field": "answer", "match": "search", "group": None, **asked[1]}  # type: ignore[dict-item]
    assert recorded[2] == {"weight": 1.0, **asked[2]}  # type: ignore[dict-item]
    assert recorded[5]["sha256"] == hashlib.sha256(FILE.encode()).hexdigest()
    details = served.get(f"/api/jobs/{job_id}").json()
    assert details["config"]["reward_functions"] == recorded
    model = served.get(f"/api/models/{details['model_id']}").json()
    assert model["training_params"]["reward_functions"] == recorded
    # and again, with the same file; with another it is refused
    again = served.post(f"/api/jobs/{job_id}/rerun", None)
    assert again.status_code == 202, again.text
    assert served.wait_for(again.json()["job_id"])["status"] == "completed"
    file.write_text(FILE + "\n")
    changed = served.post(f"/api/jobs/{job_id}/rerun", None)
    assert (changed.status_code, "mine.py has the SHA-256" in changed.json()["detail"]) == (409, True)


def test_a_preflight_says_all_that_speaks_against_them_and_reckons_without_a_reward_model(
    served: RunningServer, body: dict[str, Any], folder: Path
) -> None:
    outside = folder / "outside.py"
    outside.write_text(FILE)
    asked = [{"name": "regular_expression", "pattern": "("}, {"name": "python_file", "path": str(outside)}]
    found = served.post("/api/preflight", {**body, "reward_functions": asked}).json()
    assert [problem["field"] for problem in found["problems"]] == ["reward_functions[0].pattern"]
    found = served.post("/api/preflight", {**body, "reward_functions": asked[1:]}).json()
    assert [problem["field"] for problem in found["problems"]] == ["reward_functions[0].path"]
    found = served.post("/api/preflight", {**body, "reward_functions": ["exact_match"]}).json()
    assert (found["ok"], found["problems"]) == (True, [])


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({}, "reward_functions", "reward_functions"),
        ({"reward_functions": ["exact"]}, "reward_functions[0]", "format_tags"),
        ({"reward_functions": ["length"]}, "reward_functions[0]", "an object whose name is one of"),
        ({"reward_functions": [{"name": "exact"}]}, "reward_functions[0].name", "python_file"),
        ({"reward_functions": [{"pattern": "a"}]}, "reward_functions[0].name", "regular_expression"),
        ({"reward_functions": [{"name": "length", "maximum": 3}]}, "reward_functions[0].maximum", "max"),
        ({"reward_functions": [{"name": "exact_match", "max": 3}]}, "reward_functions[0].max", "it goes with length:"),
        ({"reward_functions": [{"name": "regular_expression"}]}, "reward_functions[0].pattern", "1000 characters"),
        ({"reward_functions": [{"name": "exact_match", "weight": "1"}]}, "reward_functions[0].weight", "-1000 to 1000"),
        ({"reward_functions": [{"name": "exact_match", "weight": 1e9}]}, "reward_functions[0].weight", "-1000 to 1000"),
        ({"reward_functions": []}, "reward_functions", "list"),
        ({"reward_functions": [{"name": "format_tags", "tags": ["a\n"]}]}, "reward_functions[0].tags[0]", "regex"),
        ({"reward_functions": "exact_match"}, "reward_functions", "list"),
        ({"reward_functions": [{"name": "exact_match", "field": "hint"}]}, "reward_functions[0].field", "'level'"),
        ({"reward_functions": [{"name": "exact_match", "field": "prompt"}]}, "reward_functions[0].field", "'prompt'"),
        ({"reward_functions": ["exact_match"], "dataset": "prompts.jsonl"}, "reward_functions[0].field", "'answer'"),
        ({"reward_functions": ["exact_match"], "strategy": "sft"}, "reward_functions", "rlhf"),
        ({"reward_functions": ["exact_match"], "use_vllm": True}, "use_vllm", "GPU"),
        ({"dataset": "prompts.jsonl", "strategy": "sft"}, "dataset", "prompts is for text-generation"),
    ],
)
def test_what_cannot_be_is_a_400_that_names_its_place_and_starts_nothing(
    served: RunningServer, body: dict[str, Any], changed: dict[str, Any], field: str, says: str
) -> None:
    before = jobs_of(served)
    answer = served.post("/api/start_training", {**body, **changed})
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (400, field), problem
    assert says in problem["error"] + problem["detail"]
    assert jobs_of(served) == before


def test_a_body_that_is_nested_too_deeply_is_a_400(served: RunningServer, body: dict[str, Any]) -> None:
    text = json.dumps({**body, "reward_functions": [{"name": "json_schema", "schema": {"a": 1}}]})
    deep = text.replace('{"a": 1}', '{"a":' * 5000 + "1" + "}" * 5000)
    answer = served.post("/api/start_training", data=deep, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert "nested too deeply" in answer.json()["error"]


def test_prompts_without_answers_are_taken_and_previewed(served: RunningServer, body: dict[str, Any]) -> None:
    shown = served.get("/api/datasets/prompts.jsonl").json()
    assert (shown["format"], shown["strategies"]) == ("prompts", ["rlhf"])
    asked = {**body, "dataset": "prompts.jsonl", "reward_functions": [{"name": "length", "target": 8}]}
    started = served.post("/api/start_training", asked)
    assert started.status_code == 200, started.text
    assert served.wait_for(started.json()["job_id"])["status"] == "completed"


def test_the_command_line_takes_them_as_json(served: RunningServer, body: dict[str, Any], folder: Path) -> None:
    (folder / "more.jsonl").write_bytes(ASKED)
    done = modelforge(
        *("train", str(folder / "more.jsonl"), "--model", body["model_name"], "--strategy", "rlhf"),
        *("--name", "completes", "--set", 'reward_functions=["exact_match", {"name": "length", "target": 3}]'),
        url=served.url,
    )
    assert done.returncode == 0, done.stderr
    newest = served.get("/api/jobs").json()["jobs"][0]
    assert newest["config"]["reward_functions"][0] == "exact_match"
    served.wait_for(newest["job_id"])


def test_vllm_is_refused_by_name_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "visible_gpus", lambda: ("0",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "vllm" else object())
    with pytest.raises(BadInput, match="vllm is not installed") as refusal:
        installed.check_installed("huggingface", installed.wire.TrainingParameters(use_vllm=True))
    assert refusal.value.field == "use_vllm"
