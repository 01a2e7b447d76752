"""What the command line says is in its own words, and what can be refused before anything is sent is."""

import json
import re
from pathlib import Path

import pytest
from support.running_server import RECORDS, RunningServer

from modelforge.cli import main
from modelforge.cli.serving import Flags
from modelforge.cli.wording import in_words_of_the_command_line, translated
from modelforge.errors import Refusal
from modelforge.fields import nearest
from modelforge.server_answers import RequestRefused
from modelforge.settings import Settings
from trainer_entry import wire

PRODUCT = Path(__file__).parents[2] / "modelforge"
OF_THE_API = ("http", "cli")
"""Where routes are named to those who speak HTTP."""


def test_a_field_of_the_api_is_a_flag_of_ours() -> None:
    assert translated('wait for its end, or send "queue": true to run this one after it.') == (
        "wait for its end, or give --queue to run this one after it."
    )
    assert translated('Send "eval_split": 0.1 too, or leave out x.') == "Give --set eval_split=0.1 too, or leave out x."
    assert translated('or send "provider": "huggingface".') == "or give --provider huggingface."


def test_no_route_is_named_to_whom_types_commands() -> None:
    """Every text of the server that names one, but those that are about HTTP itself."""
    said = [
        text
        for file in PRODUCT.rglob("*.py")
        if file.relative_to(PRODUCT).parts[0] not in OF_THE_API
        for text in re.findall(r'"[^"\n]*(?:GET|POST|DELETE) /api/[^"\n]*"', file.read_text())
    ]
    assert said, "the texts are no longer where they are looked for"
    for text in said:
        shown = translated(re.sub(r"\{[^}]*\}", "7", text))
        assert "/api/" not in shown, shown


def test_what_others_call_a_parameter_leads_to_it() -> None:
    known = wire.TrainingParameters.__struct_fields__
    meant = {"lr": "learning_rate", "epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}
    for name, parameter in meant.items():
        assert nearest(name, known) == f"Did you mean {parameter!r}?"
    assert nearest("lora_rank", known) == "Did you mean 'lora_r'?"
    assert "Did you mean" not in nearest("lr", ("prompt", "answer")), "no name is proposed that is not taken"


def test_all_that_speaks_against_a_training_is_said_a_line_each() -> None:
    refusals = (
        Refusal(field="model_name", message="No such model", remedy="model_name: there is no folder /x."),
        Refusal(field="max_steps", message="Expected int, got str", remedy="It takes a whole number from -1."),
        Refusal(field=None, message="It is too much", remedy='Send "queue": true.'),
    )
    assert in_words_of_the_command_line(RequestRefused("No", "such model", refusals=refusals)).splitlines() == [
        "3 things speak against it:",
        "  No such model. --model: there is no folder /x.",
        "  Expected int, got str. --set max_steps takes a whole number from -1.",
        "  It is too much. Give --queue.",
    ]


def test_every_setting_has_a_flag() -> None:
    assert set(Flags.__dataclass_fields__) == set(Settings.__struct_fields__)


def test_a_wrong_command_line_is_answered_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["trian"], '"train"'),
        (["train", "x", "--modle", "y"], "--model"),
        (["train", "x", "--model", "y", "--strategy", "stf"], '"sft"'),
        (["train", "x", "--model", "y", "--set", "max_steps"], "NAME=VALUE"),
        (["token", "revoke"], "give one NAME"),
        (["models", "delete", "1"], "--yes"),
    ):
        assert main(words) == 2, words
        assert said in capsys.readouterr().err, words
    assert main([]) == 0
    assert "upload a dataset and train a model on it" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert {"text-generation", "unsloth", "learning_rate"} <= set(re.findall(r"[\w-]+", capsys.readouterr().out))


def test_the_completion_of_a_shell_has_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert {"train", "preflight", "datasets"} <= set(re.findall(r"\w+", capsys.readouterr().out))


def test_a_port_that_is_taken_leaves_no_data_directory(
    module_server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = module_server.url.rpartition(":")[2]
    assert main(["serve", "--port", port, "--data-dir", str(tmp_path / "data")]) == 1
    assert "try another --port" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "unsent.jsonl"
    path.write_bytes(RECORDS)
    return path


def test_what_would_be_refused_whatever_is_in_a_file_is_refused_before_it_is_sent(
    module_server: RunningServer, dataset: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--url", module_server.url)
    for flags, said in (
        (("--model", "/nowhere/at/all"), "--model: /nowhere/at/all"),
        (("--model", str(model_folder), "--set", "lr=1e-4"), "--set lr: did you mean 'learning_rate'?"),
        (("--model", str(model_folder), "--set", "max_steps=ten"), "--set max_steps takes a whole number"),
    ):
        assert main(["train", str(dataset), *flags, *at]) == 1
        assert said in capsys.readouterr().err
    assert module_server.get("/api/datasets").json()["datasets"] == []


def test_json_is_the_answer_of_the_server_and_nothing_else(
    module_server: RunningServer, dataset: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    at = ("--url", module_server.url)
    assert main(["datasets", "upload", str(dataset), "--json", *at]) == 0
    assert json.loads(capfdbinary.readouterr().out)["num_examples"] == 20
    for words, path in (("datasets list", "/api/datasets"), ("models list", "/api/models"), ("jobs", "/api/jobs")):
        assert main([*words.split(), "--json", *at]) == 0
        assert json.loads(capfdbinary.readouterr().out) == module_server.get(path).json()
    assert main(["datasets", "preview", dataset.name, "--limit", "1", *at]) == 0
    assert b'{"input": "question 0", "output": "answer 0"}' in capfdbinary.readouterr().out
    assert main(["datasets", "delete", dataset.name, "--yes", *at]) == 0
    assert module_server.get("/api/datasets").json()["datasets"] == []
