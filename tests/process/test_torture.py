from pathlib import Path

import pytest
import torture_processes
import torture_syscalls


def test_a_few_kills_at_system_calls_cost_nothing(tmp_path: Path) -> None:
    names = ("start", "upload-revision", "delete-dataset", "server-start")
    assert torture_syscalls.torture(tmp_path, seed=3, count=2, names=names) == []


@pytest.mark.training
def test_a_killed_launcher_shim_or_trainer_is_told_at_once_and_the_next_job_starts(tmp_path: Path) -> None:
    assert torture_processes.torture(tmp_path, seed=3, count=1) == []
