"""Commands on a terminal: keys that interrupt them, answers as they come, tables of its width, colours."""

import json
from collections.abc import Callable

import pytest
from support.running_server import RunningServer
from support.terminal import COLOURS, OnTerminal

from modelforge.cli import main
from modelforge.cli.terminal import describe
from modelforge.projections.jobs import Status
from modelforge.projections.status_messages import StatusMessage

Begin = Callable[..., str]


@pytest.fixture
def begin(talking: RunningServer, base: str) -> Begin:
    """Starts a job whose trainer behaves as named, once nothing else runs."""

    def start(behaviour: str, **fields: object) -> str:
        body = {"task": "text-generation", "model_name": base, "dataset": "data.jsonl", "output_name": behaviour}
        answer = talking.post("/api/start_training", {**body, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    return start


def script(*pieces: str, **how: object) -> str:
    return json.dumps({"say": pieces, **how})


@pytest.fixture(scope="module")
def model(talking: RunningServer, base: str) -> str:
    """The number of a model."""
    body = {"task": "text-generation", "model_name": base, "dataset": "data.jsonl", "output_name": "completes"}
    job = talking.post("/api/start_training", body).json()
    return str(talking.wait_for(job["job_id"])["model_id"])


@pytest.mark.parametrize("status", ["queued", "stopping"])
def test_a_job_that_waits_at_a_cluster_is_what_it_is(status: Status) -> None:
    message = StatusMessage(status=status, waiting_for="no node", position=1, type="AttemptWaits", at=1)
    assert describe(message) == f"{status}: no node"


def test_ctrl_c_ends_the_watching_and_says_what_is_left_to_do(
    talking: RunningServer, begin: Begin, at: tuple[str, str]
) -> None:
    job = begin("waits", max_steps=100_000)
    watching = OnTerminal("watch", *at)
    watching.read_until("training")
    watching.type("\x03")
    assert watching.end() == 130
    said = watching.text.partition(f"{job} goes on.")[2]
    assert [line.split("  ")[1] for line in said.strip("\n").splitlines()] == [
        f"modelforge watch {job}",
        f"modelforge stop {job}",
    ]
    assert "Traceback" not in watching.text
    assert talking.get(f"/api/jobs/{job}").json()["status"] == "training"
    assert main(["stop", job, *at]) == 0
    talking.wait_for(job)


def test_ctrl_c_in_a_training_that_is_watched_leaves_it_running(
    talking: RunningServer, base: str, at: tuple[str, str], model: str
) -> None:
    flags = ("--model", base, "--name", "waits", "--set", "max_steps=100000")
    training = OnTerminal("train", "data.jsonl", *flags, "--watch", *at)
    training.read_until("100000")
    training.type("\x03")
    assert training.end() == 130
    assert "goes on." in training.text
    assert talking.post("/api/stop_training").status_code == 200


def test_a_chat_answers_as_it_goes_and_knows_what_was_said(model: str, at: tuple[str, str]) -> None:
    chat = OnTerminal("chat", "--model", model, *at, columns=400)
    chat.read_until("Ctrl-D")
    chat.read_until("> ")
    chat.type(script("one ", "two") + "\n")
    chat.read_until("one two")
    chat.read_until("> ")
    chat.type("and then?\n")
    asked = chat.read_until('"and then?"')
    assert '"content":"one two"' in asked.replace('\\"', '"')
    chat.read_until("> ")
    chat.type("/new\n")
    chat.read_until("> ")
    chat.type("hello\n")
    assert "one two" not in chat.read_until('"hello"')
    chat.read_until("> ")
    chat.type("\x04")
    assert chat.end() == 0


def test_ctrl_c_ends_an_answer_and_twice_the_chat(model: str, at: tuple[str, str]) -> None:
    chat = OnTerminal("chat", "--model", model, *at)
    chat.read_until("> ")
    chat.type(script("a long story", wait=True) + "\n")
    chat.read_until("}")
    chat.read_until("a long story")
    chat.type("\x03")
    chat.read_until("> ")
    chat.interrupt()
    chat.read_until("Ctrl-D ends the chat")
    chat.interrupt()
    assert chat.end() == 130
    assert "Traceback" not in chat.text


def test_a_chat_goes_on_after_a_refusal(model: str, at: tuple[str, str]) -> None:
    chat = OnTerminal("chat", "--model", model, *at)
    chat.read_until("> ")
    chat.type(script(fail="OutOfMemory") + "\n")
    chat.read_until("modelforge: The model could not answer")
    chat.read_until("> ")
    chat.type("\x04")
    assert chat.end() == 0


def test_every_table_fits_a_terminal_of_80_columns(
    talking: RunningServer, begin: Begin, model: str, at: tuple[str, str]
) -> None:
    other = begin("completes", max_steps=30)
    talking.wait_for(other)
    first = str(talking.get("/api/jobs").json()["jobs"][-1]["job_id"])
    every = (["jobs"], ["models", "list"], ["datasets", "list"], ["diff", first, other], ["jobs", other])
    shown = OnTerminal(*(word for words in every for word in (*words, *at, ";")))
    assert shown.end() == 0, shown.text
    assert "came out" in shown.text
    assert all(len(line) <= 80 for line in shown.text.splitlines()), shown.text
    assert "…" not in shown.text
    wide = OnTerminal("jobs", *at, columns=120)
    assert wide.end() == 0
    assert "started (UTC)" in wide.text


def test_no_color_takes_the_colours_from_a_terminal_and_leaves_the_rest(
    talking: RunningServer, model: str, at: tuple[str, str]
) -> None:
    job = str(talking.get("/api/jobs").json()["jobs"][0]["job_id"])
    coloured, plain = OnTerminal("watch", job, *at), OnTerminal("watch", job, *at, NO_COLOR="1")
    coloured.end()
    plain.end()
    assert COLOURS.search(coloured.written.decode())
    assert not COLOURS.search(plain.written.decode())
    assert "━" in plain.text


def test_where_nobody_looks_nothing_moves_and_nothing_is_coloured(
    talking: RunningServer, begin: Begin, model: str, at: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    job = begin("completes")
    for words in (["watch", job], ["jobs"], ["models", "list"], ["models", "show", model], ["help", "parameters"]):
        assert main([*words, *(at if words[0] != "help" else ())]) == 0
        said = capfd.readouterr()
        assert said.out
        assert not set(said.out + said.err) & {"\x1b", "\r", "━"}, words
