"""A site of the tests of launchers whose server sees late what its nodes write (tests/support/late_files.py)."""

import atexit
import contextlib
import functools
import os
import tempfile
from pathlib import Path

import pytest

from support.late_files import CannotMountError, seen_late
from support.slurm_cluster import SlurmCluster, can_be_apart, missing_programs, running_cluster
from support.slurm_site import SlurmSite


@functools.cache
def cluster_apart() -> SlurmCluster:
    """The cluster of tests whose nodes write through, until this process ends; skipped where there can be none."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed here: {', '.join(missing)}")
    if not can_be_apart():
        pytest.skip("daemons cannot have mounts of their own here")
    folder = tempfile.TemporaryDirectory(prefix="slurm-")
    running = contextlib.ExitStack()
    atexit.register(running.close)
    running.enter_context(folder)
    return running.enter_context(running_cluster(Path(folder.name) / "cluster", apart=True))


class LateSite(SlurmSite):
    """The nodes' shared root, seen up to `longest` seconds late. `delays`: of files by their names, _ for a dot.

    `under`: the folder as the nodes have it.
    """

    def __init__(self, folder: Path, *, seed: int = 1, longest: float = 1.5, **delays: float) -> None:
        super().__init__(folder, cluster_apart())
        self._mounted = contextlib.ExitStack()
        beneath = os.open(self.layout.root, os.O_PATH | os.O_DIRECTORY)
        self._mounted.callback(os.close, beneath)
        self.under = Path(f"/proc/self/fd/{beneath}")
        late = seen_late(self.layout.root, seed, longest, {name.replace("_", "."): one for name, one in delays.items()})
        try:
            self._mounted.enter_context(late)
        except CannotMountError as error:
            pytest.skip(f"no file system can be mounted here: {error}")

    def close(self) -> None:
        super().close()
        self._mounted.close()
