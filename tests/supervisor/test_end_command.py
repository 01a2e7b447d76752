"""The command that is run when a job ends."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.running_server import RunningServer
from support.scenario import JOB, given, launching, records_of, requested

from modelforge.domain.job import TrainingFailed
from modelforge.end_command import EndCommand, run_end_command
from modelforge.errors import SettingsInvalid
from modelforge.settings import load_settings

FAILED = TrainingFailed(job_id=JOB, kind="OutOfMemory", message="8 GiB; $(touch x)\0")


async def run(words: str, seconds: float = 20.0) -> list[dict[str, object]]:
    """What is logged of a command that is run for a job that failed."""
    command = EndCommand(words, given(requested(), launching(), FAILED).state, seconds)
    with capture_logs() as lines:
        command.take(records_of(requested(), launching(), FAILED))
        while command._tasks:  # noqa: SLF001 - its end shows nowhere else
            await next(iter(command._tasks))  # noqa: SLF001
    return [dict(line) for line in lines]


async def test_what_ended_stands_in_its_environment_and_nothing_is_read_by_a_shell(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import json, os, sys; json.dump([sys.argv[2:], dict(os.environ)], open(sys.argv[1], 'w'))")
    assert await run(f"{sys.executable} {program} {tmp_path}/said 'two words' '$HOME'") == []
    words, variables = json.loads((tmp_path / "said").read_text())
    assert words == ["two words", "$HOME"]
    told = {name: value for name, value in variables.items() if name.startswith("MODELFORGE_JOB_")}
    assert told == {
        "MODELFORGE_JOB_ID": JOB,
        "MODELFORGE_JOB_STATUS": "failed",
        "MODELFORGE_JOB_KIND": "training",
        "MODELFORGE_JOB_NAME": "my-base-finetuned",
        "MODELFORGE_JOB_MODEL": "base",
        "MODELFORGE_JOB_ERROR": "OutOfMemory: 8 GiB; $(touch x)",
    }


async def test_one_that_fails_is_logged_with_its_last_words() -> None:
    (line,) = await run("sh -c 'echo no bus >&2; exit 3'")
    assert (line["event"], line["job_id"], line["reason"]) == ("on_end_failed", JOB, "exit code 3: no bus")
    (line,) = await run("/nowhere/notify-send")
    assert "No such file" in str(line["reason"])


async def test_one_that_a_terminal_waits_for_ends_with_the_waiting(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    os.mkfifo(said)
    waiting = asyncio.create_task(run_end_command(["sh", "-c", f"echo $$ > {said}; sleep 30"], {}, outlives=False))
    pid = int(await asyncio.to_thread(said.read_text))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    (line,) = await run(f"sh -c 'sleep 30; touch {tmp_path}/late'", seconds=0.2)
    assert line["reason"] == "not done within 0.2 s"


@pytest.mark.parametrize("command", ["", "'open", "no-such-program-anywhere x"])
def test_one_that_cannot_be_run_is_refused_at_the_start(tmp_path: Path, command: str) -> None:
    with pytest.raises(SettingsInvalid, match="on_end"):
        load_settings({"on_end": command}, {}, tmp_path)


def test_a_server_runs_it_for_each_end_of_a_job(
    serve: Callable[..., RunningServer], start: Callable[..., str], tmp_path: Path
) -> None:
    command = f"sh -c 'echo $MODELFORGE_JOB_ID $MODELFORGE_JOB_STATUS >> {tmp_path}/ends'"
    server = serve(MODELFORGE_ON_END=command)
    job_id = start(server, "completes")
    server.wait_for(job_id)
    deadline = time.monotonic() + 10
    while not (tmp_path / "ends").is_file() or not (tmp_path / "ends").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (tmp_path / "ends").read_text() == f"{job_id} completed\n"
