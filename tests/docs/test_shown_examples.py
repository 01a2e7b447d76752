"""The examples of the pages: run against a server with scripted trainers where that is enough, and else parsed."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from pages import ROOT, blocks, read, section
from support.command_lines import check_taken, shown_in
from support.running_server import RunningServer, environment, scripted_server

from modelforge.admission.training import StartTrainingBody
from modelforge.http.routes import ROUTES

PAGES = ["README.md", "SECURITY.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"
HERE = re.compile(r"`modelforge ([^`]+)`")
_PLACEHOLDER = "…"


def shell(page: str) -> str:
    return "\n".join(blocks(read(page), "sh"))


def calls(page: str) -> Iterator[list[str]]:
    """The words of each call of curl."""
    for line in re.findall(r"^curl .*(?:\n.*)*?(?=\n\n|\ncurl|\n```|\Z)", shell(page), re.MULTILINE):
        words = shlex.split(line.replace("\\\n", " "), comments=True)
        yield words[: words.index("&&")] if "&&" in words else words


@pytest.mark.parametrize("page", [*PAGES, "docs/modelforge.service"])
def test_every_command_in_a_page_is_taken_with_its_flags(page: str) -> None:
    lines = shell(page) if page.endswith(".md") else read(page)
    for words in shown_in("\n".join(line.partition("ExecStart=")[2] or line for line in lines.splitlines())):
        check_taken(words)
    for named in HERE.findall(read(page)):
        if _PLACEHOLDER not in named:
            check_taken(shlex.split(named.partition("\\|")[0]), whole=False)


@pytest.mark.parametrize("page", PAGES)
def test_every_call_of_curl_in_a_page_is_of_a_route_with_its_query_and_its_body(page: str) -> None:
    for words in calls(page):
        (url,) = [urlsplit(word) for word in words if word.startswith(ADDRESS)]
        sent = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if {"-d", "-F"} & {*words} else "GET"
        found = [
            route
            for route in ROUTES
            if route.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", route.path), url.path)
        ]
        assert found, words
        assert set(parse_qs(url.query)) <= {query.name for query in found[0].query}, words
        if sent is not None:
            assert found[0].body is not None
            msgspec.json.decode(sent, type=found[0].body)


def test_a_list_of_datasets_is_one_that_a_training_takes() -> None:
    (mixture,) = [one for one in blocks(read("docs/datasets.md"), "json") if one.startswith('[{"dataset"')]
    body = {"task": "text-generation", "model_name": "m", "dataset": json.loads(mixture)}
    msgspec.convert(body, StartTrainingBody)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = scripted_server(tmp_path_factory.mktemp("examples") / "data", "--scripted-answers")
    yield server
    server.end()


def run(example: str, server: RunningServer, *command: str, **variables: str) -> str:
    """What an example prints, with the server at its address."""
    program = f"{shlex.quote(sys.executable)} -m modelforge"
    text = example.replace(ADDRESS, server.url).replace(".venv/bin/modelforge", program)
    added = environment(MODELFORGE_URL=server.url, **variables)
    ended = subprocess.run(
        [*command, text], cwd=ROOT, capture_output=True, text=True, env=added, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_example_of_the_readme_does_what_it_says(server: RunningServer) -> None:
    first, asked, typed = blocks(section(read("README.md"), "One example"), "sh")
    told = run(first.replace("curl ", "curl -sSf "), server, "sh", "-ec")
    (job,) = re.findall(r'"job_id":"(train_\d+)"', told.split('"status":"started"')[1])[:1]
    assert server.wait_for(job)["status"] == "completed"
    told = run(asked.replace("curl ", "curl -sSf "), server, "sh", "-ec")
    assert '"What is a volcano?' in told.replace('\\"', '"')
    assert "completed 10/10" in run(typed, server, "sh", "-ec")


def test_the_examples_of_uploads_and_streams_are_answered(server: RunningServer, tmp_path: Path) -> None:
    questions = tmp_path / "questions.csv"
    questions.write_text("question,reply\n" + "".join(f"what {number}?,that {number}\n" for number in range(9)))
    for words in calls("docs/datasets.md"):
        if "-F" in words:
            call = shlex.join(["curl", "-sSf", *words[1:]]).replace("questions.csv", str(questions))
            assert '"num_examples":' in run(call, server, "sh", "-ec")
    for words in calls("docs/api.md"):
        call = [word.replace(ADDRESS, server.url).replace("train_000003", "train_999999") for word in words]
        with subprocess.Popen([call[0], "-sSf", *call[1:]], stdout=subprocess.PIPE, env=environment()) as following:
            assert following.stdout is not None
            if "job_id=" not in call[-1]:
                assert following.stdout.readline()
            following.terminate()


def test_the_example_in_python_trains(server: RunningServer) -> None:
    (example,) = blocks(read("docs/api.md"), "python")
    assert "final_loss" in run(example.replace("sleep(2)", "sleep(0.1)"), server, sys.executable, "-c")


def test_the_examples_for_openai_s_client_are_answered(server: RunningServer, tmp_path: Path) -> None:
    files, chat, webhook = blocks(read("docs/openai.md"), "python")
    told = run(f"{files}\n{chat}", server, sys.executable, "-W", "ignore", "-c")
    assert "smollm2-135m-instruct" in told
    assert "What is a volcano?" in told
    key = tmp_path / ".local/share/modelforge/owner.key"
    key.parent.mkdir(parents=True)
    key.write_text(server.as_owner()["Authorization"].removeprefix("Bearer "))
    assert run(webhook, server, sys.executable, "-W", "ignore", "-c", HOME=str(tmp_path)).startswith("whsec_")


def test_the_commands_that_make_a_token_are_run_as_they_stand(tmp_path: Path, server: RunningServer) -> None:
    example = blocks(section(read("docs/operations.md"), "Tokens"), "sh")[0]
    made, *others = [line for line in example.splitlines() if not line.startswith(".venv/bin/modelforge token link")]
    folder = {"MODELFORGE_DATA_DIR": str(tmp_path / "data")}
    told = run("\n".join((made, *others)), server, "sh", "-ec", **folder)
    assert told.startswith("mf_")
    assert "laptop is revoked" in told
    assert (tmp_path / "data").stat().st_mode & 0o77 == 0
