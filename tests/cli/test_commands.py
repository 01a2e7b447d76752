"""Every command that asks a server, run to its end: what it prints, as JSON too, and its exit code."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import model_in
from support.running_server import RECORDS, RunningServer, environment

from modelforge.cli import main

Said = Callable[..., str]


@pytest.fixture
def said(at: tuple[str, str], capfdbinary: pytest.CaptureFixture[bytes]) -> Said:
    """Runs a command; what it wrote on stdout."""

    def run(*words: str, code: int = 0) -> str:
        assert main([*words, *at]) == code, capfdbinary.readouterr().err
        return capfdbinary.readouterr().out.decode()

    return run


@pytest.fixture(scope="module")
def done(talking: RunningServer, base: str) -> tuple[str, str]:
    """Two jobs that are done, of 3 steps and of 5."""
    body = {"task": "text-generation", "model_name": base, "dataset": "data.jsonl", "output_name": "completes"}
    jobs = []
    for steps in (3, 5):
        jobs.append(str(talking.post("/api/start_training", {**body, "max_steps": steps}).json()["job_id"]))
        talking.wait_for(jobs[-1])
    return jobs[0], jobs[1]


def attempt_log(data_dir: Path, job_id: str) -> Path:
    return data_dir / "jobs" / job_id / "attempt-1" / "stderr.log"


def test_logs_prints_what_a_trainer_wrote_of_any_attempt(
    said: Said, done: tuple[str, str], module_data_dir: Path
) -> None:
    attempt_log(module_data_dir, done[0]).write_text("step 1\rstep 2\n\x1b[2Jloss\n")
    assert said("logs", done[0]) == "step 1\nstep 2\n\\x1b[2Jloss\n"
    assert said("logs", done[0], "--attempt", "1") == said("logs", done[0])
    (line,) = said("logs", done[0], "--json").splitlines()
    assert json.loads(line) == {"job_id": done[0], "attempt": 1, "text": "step 1\rstep 2\n\x1b[2Jloss\n"}


def test_logs_f_goes_on_until_the_job_ends(
    talking: RunningServer, base: str, at: tuple[str, str], module_data_dir: Path
) -> None:
    body = {"task": "text-generation", "model_name": base, "dataset": "data.jsonl", "output_name": "obeys"}
    job = str(talking.post("/api/start_training", body).json()["job_id"])
    talking.wait_for(job, "training")
    command = [sys.executable, "-m", "modelforge", "logs", "-f", *at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as following:
        assert following.stdout is not None
        for line in ("one\n", "two\n"):
            with attempt_log(module_data_dir, job).open("a") as log:
                log.write(line)
            assert following.stdout.readline() == line
        (attempt_log(module_data_dir, job).parent / "order").write_text("finish")
        assert following.stdout.read() == ""
        assert following.wait(60) == 0
    assert talking.wait_for(job)["status"] == "completed"


def test_diff_says_in_what_jobs_differ_and_in_what_not(said: Said, done: tuple[str, str]) -> None:
    told = said("diff", *done)
    assert told.split("\n")[0].split() == [*done]
    assert [line.split() for line in told.splitlines() if "max_steps" in line] == [
        ["parameters", "max_steps", "3", "5"]
    ]
    differences = json.loads(said("diff", *done, "--json"))
    assert {"part": "parameters", "name": "max_steps", "first": "3", "second": "5"} in differences
    assert {"curves", "came out"} <= {one["part"] for one in differences}
    assert said("diff", done[0], done[0]) == "They differ in nothing.\n"


def test_events_prints_the_records_and_how_to_go_on(said: Said, done: tuple[str, str]) -> None:
    lines = said("events", "--stream", done[0], "--limit", "2").splitlines()
    assert [line.split()[4] for line in lines[:2]] == ["StartTraining", "TrainingRequested"]
    position = lines[1].split()[0]
    assert lines[2] == f"There are more: --after {position} goes on, --limit takes up to 10000."
    assert said("events", "--after", position, "--stream", done[0]).splitlines()[0].split()[4] == "AttemptLaunching"
    assert said("events", "--stream", "train_999999") == "There is no such record.\n"
    records = [json.loads(line) for line in said("events", "--type", "TrainingCompleted", "--json").splitlines()]
    assert {record["type"] for record in records} == {"TrainingCompleted"}


def test_events_f_goes_on_until_ctrl_c(talking: RunningServer, at: tuple[str, str], done: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "modelforge", "events", "-f", "--type", "DatasetUploaded", *at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as following:
        assert following.stdout is not None
        assert "dataset:data.jsonl" in following.stdout.readline()
        talking.upload(RECORDS, "later.jsonl").raise_for_status()
        assert "dataset:later.jsonl" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130


def test_state_is_that_of_a_position(said: Said, talking: RunningServer, done: tuple[str, str]) -> None:
    assert json.loads(said("state")) == talking.get("/api/state").json()
    then = json.loads(said("state", "--at", str(int(done[0].removeprefix("train_")))))
    assert then["position"] == int(done[0].removeprefix("train_"))
    assert then["models"] == []


def test_json_is_valid_and_alone_on_stdout_of_every_command(
    said: Said, talking: RunningServer, base: str, done: tuple[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(RECORDS)
    asked = ("--model", base, "--name", "completes")
    model = str(talking.get(f"/api/jobs/{done[0]}").json()["model_id"])
    for words in (
        ("jobs",),
        ("jobs", done[0]),
        ("watch", done[0]),
        ("events",),
        ("state",),
        ("diff", *done),
        ("preflight", "data.jsonl", *asked),
        ("train", str(file), *asked, "--watch"),
        ("rerun", done[0], "--watch"),
        ("datasets", "upload", str(file)),
        ("datasets", "list"),
        ("datasets", "show", "data.jsonl"),
        ("datasets", "preview", "data.jsonl"),
        ("models", "list"),
        ("models", "show", model),
        ("chat", '{"say": ["yes"]}', "--model", model),
    ):
        lines = said(*words, "--json").splitlines()
        assert lines, words
        for line in lines:
            json.loads(line)
    assert json.loads(said("preflight", "data.jsonl", "--model", "/nowhere", "--json", code=1))["ok"] is False


def test_a_job_is_saved_stopped_and_gone_on_with_in_json_too(said: Said, talking: RunningServer, base: str) -> None:
    asked = ("--model", base, "--name", "obeys", "--json")
    job = json.loads(said("train", "data.jsonl", *asked))["job_id"]
    talking.wait_for(job, "training")
    assert json.loads(said("checkpoint", job, "--json"))["job_id"] == job
    assert json.loads(said("stop", job, "--json"))["job_id"] == job
    talking.wait_for(job)
    assert json.loads(said("resume", job, "--json"))["attempt"] == 2
    assert json.loads(said("stop", "--json"))["status"] == "stopped"


def test_a_deletion_is_answered_in_json_and_asks_nobody_with_yes(said: Said, talking: RunningServer) -> None:
    talking.upload(RECORDS, "gone.jsonl").raise_for_status()
    assert "deleted" in json.loads(said("datasets", "delete", "gone.jsonl", "--yes", "--json"))["message"]
    said("datasets", "delete", "gone.jsonl", "--yes", code=1)
    said("models", "delete", "1", code=2)


def test_chat_answers_each_line_of_a_pipe_by_itself(
    said: Said, done: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"say": ["one"]}\n\n{"say": ["two", " more"], "finish": "length"}\n')
    os.close(writing)
    with open(reading) as piped:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stdin", piped)
        assert said("chat").splitlines() == ["one", "two more […] (cut off: --max-new-tokens takes more)"]


def test_chat_asks_the_newest_model_or_the_base_of_one(
    said: Said, talking: RunningServer, done: tuple[str, str]
) -> None:
    newest = max(model["id"] for model in talking.get("/api/models").json()["models"])
    path = talking.get(f"/api/models/{newest}").json()["path"]
    assert json.loads(said("chat", "who?"))["adapter_path"] == path
    of_base = json.loads(said("chat", "who?", "--model", str(newest), "--base", "--seed", "3"))
    assert (of_base["adapter_path"], of_base["seed"]) == (None, 3)


def test_watch_runs_a_command_at_the_end_of_a_job(said: Said, done: tuple[str, str], base: str, tmp_path: Path) -> None:
    shown = " ".join(f"$MODELFORGE_JOB_{name}" for name in ("ID", "STATUS", "KIND", "NAME", "MODEL"))
    command = f"sh -c 'echo {shown} > {tmp_path}/end'"
    said("watch", done[0], "--on-end", command)
    assert (tmp_path / "end").read_text() == f"{done[0]} completed training completes {base}\n"


def test_a_command_at_the_end_that_fails_is_said_and_one_that_is_not_there_is_refused_before(
    at: tuple[str, str], done: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", done[0], "--on-end", "sh -c 'echo no bus >&2; exit 3'", *at]) == 0
    assert "--on-end failed: exit code 3: no bus" in capfd.readouterr().err
    assert main(["watch", done[0], "--on-end", "no-such-program x", *at]) == 1
    refused = capfd.readouterr()
    assert "--on-end is not there" in refused.err
    assert refused.out == ""


def test_a_reader_that_goes_is_no_error_and_has_its_exit_code(at: tuple[str, str], done: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "modelforge", "events", *at, "--limit", "10000", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        ended = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, env=environment(), check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("trian",), 2, 'Did you mean "train"?\n`modelforge help`'),
        (("models", "lst"), 2, 'Did you mean "list"?\n`modelforge models --help`'),
        (("train", "data.jsonl"), 2, "`modelforge train` needs --model: what to train"),
        (("train", "data.jsonl", "--model"), 2, "--model needs a value: what to train"),
        (("resume",), 2, "`modelforge resume` needs JOB_ID"),
        (("stop", "one", "two"), 2, "does not take 'two'"),
        (("--url", "x", "jobs"), 2, "flags stand behind it"),
        (("jobs", "--limit", "x"), 2, "--limit takes a whole number, and not 'x'"),
        (("chat", "--temperature", "hot"), 2, "--temperature takes a number, and not 'hot'"),
        (("jobs", "--url", "ftp://forge"), 2, "http://HOST:PORT"),
        (("jobs", "--url", "http://forge:port"), 2, "http://HOST:PORT"),
        (("datasets", "upload", "/nowhere.jsonl"), 2, "There is no file /nowhere.jsonl."),
        (("jobs", "--token-file", "/nowhere"), 1, "/nowhere: No such file or directory."),
        (("serve", "--port", "80000"), 1, "--port: expected int <= 65535"),
        (("help", "formts"), 2, "Did you mean 'formats'?"),
    ],
)
def test_what_is_wrong_is_said_by_what_was_typed(
    words: tuple[str, ...], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words]) == code
    said = capsys.readouterr()
    assert expected in said.err
    assert said.out == ""


def test_an_unknown_parameter_is_one_and_the_page_that_lists_them_is_named(
    at: tuple[str, str], base: str, talking: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "data.jsonl", "--model", base, "--set", "lora_rr=4", *at]) == 1
    assert capsys.readouterr().err == (
        "modelforge: There is no parameter lora_rr: --set lora_rr: did you mean 'lora_r'? "
        "`modelforge help parameters` lists them.\n"
    )


def test_a_host_and_a_port_are_an_address_and_a_folder_here_is_a_model(
    talking: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_in(tmp_path)
    with contextlib.chdir(tmp_path):
        address = talking.url.removeprefix("http://")
        assert main(["preflight", "data.jsonl", "--model", "base", "--url", address]) == 0
    assert "Nothing speaks against it." in capsys.readouterr().out
