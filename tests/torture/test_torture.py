from pathlib import Path

import pytest
from support.slurm_cluster import missing_programs

from torture import cluster, processes, syscalls


def test_a_few_kills_at_system_calls_cost_nothing(tmp_path: Path) -> None:
    names = ("start", "upload-revision", "delete-dataset", "server-start")
    assert syscalls.torture(tmp_path, seed=3, count=1, names=names) == []


@pytest.mark.training
def test_a_killed_launcher_shim_or_trainer_is_told_at_once_and_the_next_job_starts(tmp_path: Path) -> None:
    assert processes.torture(tmp_path, seed=3, count=1) == []


@pytest.mark.skipif(bool(missing_programs()), reason="Slurm is not installed here")
def test_a_killed_server_node_shim_or_trainer_of_a_cluster_costs_no_step_and_every_end_has_its_cause(
    tmp_path: Path,
) -> None:
    victims: tuple[cluster.Victim, ...] = ("server", "node", "shim", "trainer")
    assert cluster.torture(tmp_path, seed=3, kills=1, victims=victims, restarts=0, queued=0) == []
