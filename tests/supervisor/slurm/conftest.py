"""One cluster for all tests of this folder, and a server on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import SlurmCluster, missing_programs, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Three idle nodes; skipped where Slurm is not installed (`apt-get install slurm-wlm`)."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed here: {', '.join(missing)}")
    with running_cluster(Path(tmp_path_factory.mktemp("slurm")) / "cluster") as running:
        yield running
