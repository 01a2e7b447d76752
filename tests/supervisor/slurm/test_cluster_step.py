"""The steps of one job on two nodes, without a cluster: what they leave for each other in the folder that both see."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from modelforge.supervisor.slurm.signs import StepExit

_STEP = "import sys; from trainer_entry import cluster_step as step; step._FAILED_SECONDS = 1; step.main(sys.argv[1:])"


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
