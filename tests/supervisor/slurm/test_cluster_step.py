"""The steps of one job on two nodes, without a cluster: what they leave for each other in the folder that both see."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from support.late_files import CannotMountError, seen_late

from modelforge.supervisor.slurm.signs import StepExit

_STEP = "import sys; from trainer_entry import cluster_step as step; step._FAILED_SECONDS = 1; step.main(sys.argv[1:])"


_ENDS_AT_ONCE = """
import os, subprocess, sys
from trainer_entry import cluster_step

class EndsAtOnce(subprocess.Popen):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

subprocess.Popen = EndsAtOnce
cluster_step.main(sys.argv[1:])
"""


def test_how_a_launcher_ended_is_known_however_soon_it_did(tmp_path: Path) -> None:
    step = {"command": ["/bin/sh", "-c", "exit 5"], "module": "none", "grace_seconds": 5, "nodes": 1}
    (tmp_path / "step.json").write_bytes(msgspec.json.encode(step))
    (tmp_path / "environment.json").write_text("{}")
    environment = os.environ | {"SLURM_JOB_ID": "5"}
    subprocess.run([sys.executable, "-c", _ENDS_AT_ONCE, str(tmp_path)], env=environment, check=True, timeout=20)
    assert msgspec.json.decode((tmp_path / "exit.json").read_bytes(), type=StepExit).code == 5


def test_a_part_that_fails_alone_ends_the_first_node_s_too(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "test $0 = 0 && exec sleep 600; exit 5", "{node}"]
    step = {"command": command, "module": "none", "grace_seconds": 5, "nodes": 2}
    (tmp_path / "step.json").write_bytes(msgspec.json.encode(step))
    (tmp_path / "environment.json").write_text("{}")
    steps = [
        subprocess.Popen(
            [sys.executable, "-c", _STEP, str(tmp_path)],
            env=os.environ | {"SLURM_JOB_ID": "5", "SLURM_NODEID": str(node)},
        )
        for node in (0, 1)
    ]
    assert [one.wait(timeout=60) for one in steps] == [0, 0]
    assert (tmp_path / "failed-1").exists()
    assert msgspec.json.decode((tmp_path / "exit.json").read_bytes(), type=StepExit).failed_node == 1
    assert "stderr-1.log has why" in (tmp_path / "stderr.log").read_text()


def test_word_of_the_server_is_heard_though_names_that_were_not_there_are_remembered_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "attempt"
    folder.mkdir()
    step = {"command": ["sleep", "600"], "module": "none", "grace_seconds": 5, "nodes": 1}
    (folder / "step.json").write_bytes(msgspec.json.encode(step))
    (folder / "environment.json").write_text("{}")
    beneath = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    under = Path(f"/proc/self/fd/{beneath}")
    try:
        with seen_late(folder, 1, 0.0, {"revoked": 600.0}):
            running = subprocess.Popen(
                [sys.executable, "-m", "trainer_entry.cluster_step", str(folder)],
                env=os.environ | {"SLURM_JOB_ID": "5"},
            )
            while not (under / "heartbeat").exists():
                assert running.poll() is None
                time.sleep(0.05)
            (under / "revoked").touch()
            assert running.wait(timeout=30) == 0
    except CannotMountError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    finally:
        os.close(beneath)
    assert msgspec.json.decode((folder / "exit.json").read_bytes(), type=StepExit).signal == signal.SIGKILL
