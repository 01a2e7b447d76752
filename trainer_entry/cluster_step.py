"""Holds one attempt's processes together on a node of a cluster, as a step of its job, in the foreground.

    python -m trainer_entry.cluster_step FOLDER

What it is to run stands in FOLDER (`step.json`: command, module, grace, nodes; `environment.json`), which every node
sees. On the first node it claims the attempt before anything else, and leaves at once where somebody else has: a job
that the cluster started twice does nothing the second time. It writes `heartbeat` each second, brings the spool to
where the server sees it as often, and says at the end how it went (`exit.json`). On the other nodes it waits for that
claim, runs its part, and leaves when the first one has reported; a part that fails is told by a file `failed-NODE`.

SIGUSR2 (the server's stop, and the time limit coming near), SIGTERM (the job is preempted, or cancelled) and a file
`stop-asked` ask the ranks to end, with GRACE for a checkpoint. Slurm sends them to every process of the step: the
launcher is deaf to them. A file `checkpoint-asked`, which the first node takes away, asks the ranks there for one, and
the ranks of all nodes agree on it. A file `revoked` ends everything at once.

Standard library only.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TypedDict

from trainer_entry.runtime.claim import (
    CHECKPOINT,
    CLAIM_VARIABLE,
    HEARTBEAT,
    REVOKED,
    STOP,
    claim_of,
    read_claim,
    take_claim,
)
from trainer_entry.runtime.process_tree import LOG, ProcessTree

_BEAT_SECONDS = 1.0
_CLAIM_SECONDS = 120.0
"""How long the other nodes wait for the first one's claim: a shared file system may show it late."""
_NOT_OURS = 3
_SILENT_SECONDS = 60.0
"""A node that cannot write its heartbeat for so long may have been given up: it gives up itself."""
_FAILED = "failed-"
_FAILED_SECONDS = 20.0
"""How long the ranks of the first node have to notice by themselves that another node's have failed, and to say so."""
_OF_THE_NODE = (
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
    *("TMPDIR", "XDG_RUNTIME_DIR"),
)
"""What Slurm says to a step of the devices that it has, and of its node's folders; all else comes from the server."""


class Step(TypedDict):
    """`step.json`. In `command`, `{node}` is the number of the node, `{host}` and `{port}` the place of the first."""

    command: list[str]
    module: str
    grace_seconds: float
    nodes: int


def main(arguments: list[str]) -> int:
    """Run the attempt, or this node's part of it; its exit code."""
    os.umask(0o077)
    folder = Path(arguments[0])
    step: Step = json.loads((folder / "step.json").read_bytes())
    node = int(os.environ.get("SLURM_NODEID", "0"))
    job = {"slurm_id": int(os.environ["SLURM_JOB_ID"]), "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}
    tree = ProcessTree(
        folder,
        step["grace_seconds"],
        step["module"],
        log=LOG if node == 0 else f"stderr-{node}.log",
        ignored=(signal.SIGTERM, signal.SIGUSR2),
        is_step=True,
    )
    tree.listen(signal.SIGTERM, signal.SIGUSR2)
    claim = _claim(folder, job) if node == 0 else _claim_of_first(folder, job)
    if claim is None:
        sys.stderr.write(f"This attempt is not ours: its claim is {read_claim(folder)}.\n")
        return _NOT_OURS
    environment: dict[str, str] = json.loads((folder / "environment.json").read_bytes())
    environment |= {name: os.environ[name] for name in _OF_THE_NODE if name in os.environ}
    environment[CLAIM_VARIABLE] = claim_of(folder, claim)
    places = {"{node}": str(node), "{host}": str(claim["address"]), "{port}": str(claim["port"])}
    command = [places.get(word, word) for word in step["command"]]
    log = tree.open_log()
    if node == 0:
        spool = tree.open_spool()
        tree.start(command, spool, log, environment=environment)
        return _see_off_first(tree, spool, step["nodes"])
    tree.start(command, log, log, environment=environment)
    return _see_off(tree, node)


def _claim(folder: Path, job: dict[str, int]) -> dict[str, str | int] | None:
    with socket.socket() as found:  # a port that is free now, for the ranks of several nodes to meet at
        found.bind(("", 0))
        port = int(found.getsockname()[1])
    record: dict[str, str | int] = {
        **job,
        "host": socket.gethostname(),
        "address": os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname(),
        "port": port,
        "mark": secrets.token_hex(16),
    }
    return record if take_claim(folder, record) else None


def _claim_of_first(folder: Path, job: dict[str, int]) -> dict[str, str | int] | None:
    """The claim of this very run of the job on its first node; None once it is another's, or does not come."""
    deadline = time.monotonic() + _CLAIM_SECONDS
    while time.monotonic() < deadline and not (folder / REVOKED).exists():
        claim = read_claim(folder)
        if claim is not None:
            return claim if {name: claim[name] for name in job} == job else None
        time.sleep(0.2)
    return None


def _see_off_first(tree: ProcessTree, spool: int, nodes: int) -> int:
    beats, others = _Beats(tree, spool), _Others(tree.folder, nodes)
    tree.watch(lambda: beats.are_over() or others.have_failed())
    tree.kill_all()
    tree.remove_secrets()
    os.fsync(spool)
    tree.report(stop_signal=tree.stop_signal, spool_bytes=os.fstat(spool).st_size, failed_node=others.given_up)
    return 0


def _see_off(tree: ProcessTree, node: int) -> int:
    ended = _Poll(tree.folder / "exit.json", tree.folder / REVOKED)
    tree.watch(ended.is_there)
    tree.kill_all()
    if tree.launcher_status:
        with contextlib.suppress(OSError):  # then the first node learns of it from its ranks
            (tree.folder / f"{_FAILED}{node}").touch()
    while not ended.is_there():  # srun takes a node that leaves early for one that failed
        time.sleep(_BEAT_SECONDS)
    return 0


class _Poll:
    """Whether one of some files is there, looked for once a second."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._next = 0.0

    def is_there(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _BEAT_SECONDS
        try:
            return any(path.exists() for path in self._paths)
        except OSError as error:
            sys.stderr.write(f"The attempt's folder cannot be read: {error}\n")
            return False


class _Others:
    """The other nodes, as the first one sees them. `given_up`: the one for whose failure the attempt was."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder = folder
        self._nodes = nodes
        self._next = self._failed_at = 0.0
        self.given_up: int | None = None

    def have_failed(self) -> bool:
        """Whether one has, and the ranks here have had their time since; looked for once a second."""
        now = time.monotonic()
        if self._nodes == 1 or now < self._next:
            return False
        self._next = now + _BEAT_SECONDS
        try:
            failed = [int(name.removeprefix(_FAILED)) for name in os.listdir(self._folder) if name.startswith(_FAILED)]  # noqa: PTH208
        except OSError as error:  # a shared file system may be away for a while
            sys.stderr.write(f"The other nodes cannot be looked for: {error}\n")
            return False
        if not failed:
            return False
        self._failed_at = self._failed_at or now
        if now < self._failed_at + _FAILED_SECONDS:
            return False
        self.given_up = min(failed)
        sys.stderr.write(f"The part of node {self.given_up} failed: stderr-{self.given_up}.log has why.\n")
        return True


class _Beats:
    """What the holder of a claim does each second."""

    def __init__(self, tree: ProcessTree, spool: int) -> None:
        self._tree = tree
        self._spool = spool
        self._count = 0
        self._next = 0.0
        self._written_at = time.monotonic()

    def are_over(self) -> bool:
        """Beat, where a second has passed; whether the attempt was given up, or cannot show that it lives."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _BEAT_SECONDS
        folder = self._tree.folder
        self._count += 1
        try:
            os.fdatasync(self._spool)
            self._write()
            if (folder / REVOKED).exists():
                return True
            if (folder / STOP).exists():
                self._tree.ask_to_stop(signal.SIGUSR2)
            if (folder / CHECKPOINT).exists():
                self._tree.ask_for_checkpoint()
                (folder / CHECKPOINT).unlink(missing_ok=True)
        except OSError as error:
            sys.stderr.write(f"The heartbeat cannot be written: {error}\n")
        else:
            self._written_at = now
        return time.monotonic() - self._written_at > _SILENT_SECONDS

    def _write(self) -> None:
        """Put a new file in the place of the last one: who changes names in a remote folder has it looked at anew.

        A name that was not there is else remembered as such for a while, and word of the server comes as late.
        """
        partial = self._tree.folder / f".{HEARTBEAT}"
        with partial.open("w") as file:
            file.write(f"{self._count}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._tree.folder / HEARTBEAT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
