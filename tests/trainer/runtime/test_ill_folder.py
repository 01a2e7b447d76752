"""A step of a cluster's job whose shared folder is ill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer_entry.runtime.claim import STOP

UNREADABLE = "x" * 300
"""Where a link leads that cannot be looked at: ENAMETOOLONG, for root too."""


def step(folder: Path, node: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import time; time.sleep(2)"]
    told = {"command": command, "module": "none", "grace_seconds": 5, "nodes": 2}
    (folder / "step.json").write_text(json.dumps(told))
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_NODEID": str(node)}
    return subprocess.Popen([sys.executable, "-m", "trainer_entry.cluster_step", str(folder)], env=environment)


@pytest.mark.timeout(60)
def test_a_training_goes_on_while_its_folder_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / STOP).symlink_to(UNREADABLE)
    assert step(tmp_path, 0).wait() == 0
    assert json.loads((tmp_path / "exit.json").read_bytes())["code"] == 0


@pytest.mark.timeout(60)
def test_another_node_waits_until_it_sees_the_report_of_the_first(tmp_path: Path) -> None:
    claim = {"slurm_id": 7, "restarts": 0, "address": "localhost", "port": 1, "mark": "a"}
    (tmp_path / "claim").write_text(json.dumps(claim))
    (tmp_path / "exit.json").symlink_to(UNREADABLE)
    second = step(tmp_path, 1)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(4)
    (tmp_path / "exit.json").unlink()
    (tmp_path / "exit.json").write_text("{}")
    assert second.wait() == 0
