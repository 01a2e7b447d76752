"""The cluster of the tests in this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import SlurmCluster, cluster_of_tests, missing_programs
from support.slurm_site import TESTS, SlurmSite


@pytest.fixture(scope="session")
def cluster() -> SlurmCluster:
    """Three idle nodes; skipped where Slurm is not installed (`apt-get install slurm-wlm`)."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed here: {', '.join(missing)}")
    return cluster_of_tests()


@pytest.fixture
def site(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmSite]:
    """Folders of attempts on it, and launchers."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = SlurmSite(tmp_path, cluster)
    yield made
    made.close()
