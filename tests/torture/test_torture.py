from pathlib import Path

import pytest

from torture import processes, syscalls


def test_a_few_kills_at_system_calls_cost_nothing(tmp_path: Path) -> None:
    names = ("start", "upload-revision", "delete-dataset", "server-start")
    assert syscalls.torture(tmp_path, seed=3, count=1, names=names) == []


@pytest.mark.training
def test_a_killed_launcher_shim_or_trainer_is_told_at_once_and_the_next_job_starts(tmp_path: Path) -> None:
    assert processes.torture(tmp_path, seed=3, count=1) == []
