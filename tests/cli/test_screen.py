"""What models, datasets and trainers are called, and what they say, reaches a terminal as text and nothing else."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from support import scenario
from support.running_log import write
from support.running_server import RunningServer, environment, modelforge

from modelforge.domain import job
from modelforge.domain.messages import Message
from modelforge.visible_text import hidden_in, visible, visible_json, visible_lines

COMMANDS = {
    "title": "\x1b]0;pwned\x07",
    "colour": "\x1b[31mred",
    "c1": "\x9b31mred\x9d0;pwned\x9c",
    "over": "safe\rgone\x08\x7f",
    "turned": "gnp\u202egpj.exe\u2066\u061c\u200f",
    "broken": "one\u2028two\u2029three\x85four\x0bfive",
}
HOSTILE = "".join(COMMANDS.values()) + "[red]:boom:[/red]"
FAILED, COMPLETED = "train_000002", "train_000005"


def past() -> list[Message]:
    """A log of a release that took such names: a job that failed, and one that left a model."""
    replace = msgspec.structs.replace
    dataset = replace(scenario.DATASET, filename=HOSTILE)
    requests = [
        replace(asked, spec=replace(asked.spec, model_name=HOSTILE, dataset=dataset, output_name=HOSTILE))
        for asked in (scenario.requested(FAILED), scenario.requested(COMPLETED))
    ]
    saved = replace(scenario.SAVED, path=f"/data/models/{HOSTILE}")
    return [
        replace(scenario.uploaded(), filename=HOSTILE),
        requests[0],
        scenario.launching(FAILED),
        job.TrainingFailed(job_id=FAILED, kind=HOSTILE, message=f"{HOSTILE}\nline 2 of {HOSTILE}"),
        requests[1],
        scenario.launching(COMPLETED),
        job.TrainingCompleted(job_id=COMPLETED, model=saved, step=1),
        replace(scenario.registered(job_id=COMPLETED), name=HOSTILE, spec=requests[1].spec, model=saved),
    ]


@pytest.fixture
def server(serve: Callable[..., RunningServer], data_dir: Path) -> RunningServer:
    data_dir.mkdir()
    write(data_dir / "events.sqlite", scenario.records_of(*past()))
    return serve()


def is_harmless(text: str) -> bool:
    return all(hidden_in(line) is None for line in text.split("\n"))


def test_no_command_of_a_terminal_comes_out_of_any_command_of_ours(server: RunningServer, data_dir: Path) -> None:
    directory = ("--data-dir", str(data_dir))
    for arguments, shown in (
        (("jobs", "--url", server.url), "\\x1b]0;pw"),  # the columns are narrow
        (("watch", FAILED, "--url", server.url), visible(HOSTILE)),
        (("watch", COMPLETED, "--url", server.url), visible(HOSTILE)),
        (("rerun", COMPLETED, "--url", server.url), "modelforge: "),
        (("stop", HOSTILE.replace("/", ""), "--url", server.url), "modelforge: "),
        (("doctor", *directory), visible(HOSTILE)),
        (("verify", *directory), "0 faults"),
    ):
        ended = modelforge(*arguments)
        said = ended.stdout + ended.stderr
        assert is_harmless(said), (arguments, said)
        assert "".join(shown.split()) in "".join(said.split()), (arguments, said)  # lines are wrapped
        assert "Traceback" not in said


def test_a_replay_says_the_same_to_a_program_and_nothing_to_a_terminal(server: RunningServer, data_dir: Path) -> None:
    ended = modelforge("replay", "--data-dir", str(data_dir), "--at", "8")
    assert is_harmless(ended.stdout)
    assert json.loads(ended.stdout)["models"][0]["name"] == HOSTILE
    assert json.loads(ended.stdout) == server.get("/api/state").json()


@pytest.mark.parametrize("arguments", [("jobs",), ("watch", FAILED)], ids=lambda words: words[0])
def test_a_terminal_gets_no_command_but_those_of_its_own_program(
    server: RunningServer, arguments: tuple[str, ...]
) -> None:
    reading, terminal = pty.openpty()
    command = [sys.executable, "-m", "modelforge", *arguments, "--url", server.url]
    variables = environment(TERM="xterm-256color", COLUMNS="400")
    ended = subprocess.run(command, stdout=terminal, stderr=terminal, env=variables, timeout=60, check=False)
    os.close(terminal)
    said = b""
    try:
        while part := os.read(reading, 1 << 16):
            said += part
    except OSError:  # what a terminal says at its end
        pass
    os.close(reading)
    assert ended.returncode == (0 if arguments == ("jobs",) else 1)
    assert b"\x1b[" in said, "it was no terminal"
    assert visible(COMMANDS["title"]).encode() in said
    for command_of_theirs in COMMANDS.values():
        assert command_of_theirs.encode() not in said
    assert b"pwned\x07" not in said
    assert b"\xc2\x9b" not in said


def test_a_refusal_of_a_server_that_is_none_of_ours_is_said_without_its_commands() -> None:
    script = (
        "import http.server, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        '        body = b\'{"error": "\\x1b]0;pwned\\x07"}\'.decode().encode()\n'
        "        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def log_message(self, *words): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.handle_request()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as foreign:
        assert foreign.stdout is not None
        ended = modelforge("jobs", url=f"http://127.0.0.1:{foreign.stdout.readline().strip()}")
    assert ended.returncode == 1
    assert is_harmless(ended.stderr)
    assert ended.stderr.startswith("modelforge: The answer cannot be read")


def test_the_log_of_a_server_commands_no_terminal_and_says_the_same_to_a_program() -> None:
    script = (
        "import json, logging, sys, warnings, structlog\n"
        "from modelforge.server_log import configure_log\n"
        "from trainer_entry.wire.redaction import Redaction\n"
        "configure_log(Redaction(()))\n"
        "words = json.loads(sys.argv[1])\n"
        "structlog.get_logger().info('said', words=words)\n"
        "structlog.get_logger().info('said', words=words + chr(0xdc80))\n"
        "try:\n"
        "    raise ValueError(words)\n"
        "except ValueError as error:\n"
        "    structlog.get_logger().error('request_failed', exc_info=error)\n"
        "logging.getLogger('aiohttp.server').error('Error handling %s', words)\n"
        "warnings.simplefilter('always')\n"
        "warnings.warn(words)\n"
    )
    command = [sys.executable, "-c", script, json.dumps(HOSTILE)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert ended.stdout == ""
    assert is_harmless(ended.stderr)
    first, second, third, last, warned, *_ = ended.stderr.splitlines()
    assert json.loads(first)["words"] == HOSTILE
    assert json.loads(second)["words"].startswith(HOSTILE)
    assert HOSTILE in json.loads(third)["exception"]
    assert last == f"Error handling {visible(HOSTILE)}"
    assert visible(HOSTILE) in warned


def test_the_log_is_for_people_at_a_terminal_and_commands_it_no_more_than_elsewhere() -> None:
    script = (
        "import json, sys, structlog\n"
        "from modelforge.server_log import configure_log\n"
        "from trainer_entry.wire.redaction import Redaction\n"
        "sys.stderr.isatty = lambda: sys.argv[2] == 'terminal'\n"
        "configure_log(Redaction(('secret-of-mine',)), sys.argv[3])\n"
        "log = structlog.get_logger()\n"
        "log.info('said', job_id='train_000001', position=7, words=json.loads(sys.argv[1]) + 'secret-of-mine')\n"
        "try:\n"
        "    raise ValueError(json.loads(sys.argv[1]))\n"
        "except ValueError as error:\n"
        "    log.error('request_failed', exc_info=error)\n"
    )
    for where, log_format, is_json in (
        ("terminal", "auto", False),
        ("pipe", "auto", True),
        ("terminal", "json", True),
        ("pipe", "console", False),
    ):
        command = [sys.executable, "-c", script, json.dumps(HOSTILE), where, log_format]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        assert is_harmless(ended.stderr)
        assert "secret-of-mine" not in ended.stderr
        first = ended.stderr.splitlines()[0]
        assert first.startswith("{") == is_json
        assert ("job_id=train_000001" in first and "position=7" in first) != is_json
        assert "ValueError" in ended.stderr


def test_every_character_that_a_terminal_obeys_is_spelled_out_and_no_other() -> None:
    spelled = {code for code in range(0x11_0000) if visible(chr(code)) != chr(code)}
    controls = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000)}
    directions = {0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x2070)}
    assert spelled == controls | directions | {*range(0xFFF9, 0xFFFC)}
    assert visible_lines("a\tb\nc\x1b") == "a\tb\nc\\x1b"
    assert visible("a\tb\nc\u202e") == "a\\x09b\\x0ac\\u202e"
    assert visible_json('{"a": "\x9b"}\n') == '{"a": "\\u009b"}\n'
    for said in ("Grüße", "שלום", "مرحبا", "नमस्ते", "👩‍🚀", "می‌خواهم"):
        assert visible(said) == said
