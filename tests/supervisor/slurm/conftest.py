"""The cluster of the tests in this folder."""

import pytest
from support.slurm_cluster import SlurmCluster, cluster_of_tests, missing_programs


@pytest.fixture(scope="session")
def cluster() -> SlurmCluster:
    """Three idle nodes; skipped where Slurm is not installed (`apt-get install slurm-wlm`)."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed here: {', '.join(missing)}")
    return cluster_of_tests()
