"""A whole Slurm on this machine, for tests: a controller and three nodes on loopback, in a folder, as this user.

It asks for no root, no munge and no daemon of the system. `with running_cluster(folder) as cluster:` gives one that is
up, and ends what it started. It can be broken: `kill_node`, `kill_controller`, `preempt_all`, `end_time_of`.
"""

import atexit
import contextlib
import functools
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer_entry.runtime.process_tree import die_with_parent

NODES = ("n1", "n2", "n3")
PARTITION, URGENT = "main", "urgent"
GPUS_PER_NODE = 2
_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
_FOLDERS_OF_DAEMONS = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # not on every user's PATH
_APART = ("unshare", "--mount", "--propagation", "private")
_UP_SECONDS = 30.0
_POLL_SECONDS = 0.05

_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout={node_timeout}
SlurmctldTimeout=4
MessageTimeout=4
KillWait=2
MinJobAge={min_job_age}
GresTypes=gpu
SlurmdParameters=config_overrides
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=1:00:00 State=UP
PartitionName={partition} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName={urgent} PriorityTier=10 PreemptMode=OFF
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 Gres=gpu:fake:{gpus} "
    "State=UNKNOWN"
)
# Devices that every machine has stand for GPUs: they are counted and handed out by number, and nothing opens them.
_GRES = "Name=gpu Type=fake File=/dev/full\nName=gpu Type=fake File=/dev/zero\n"


def missing_programs() -> list[str]:
    """What of Slurm is not installed here; tests that need a cluster are skipped then."""
    return [name for name in _PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS_OF_DAEMONS))


def can_be_apart() -> bool:
    """Whether daemons can have mounts of their own here."""
    return shutil.which(_APART[0]) is not None and subprocess.run([*_APART, "true"], check=False).returncode == 0


def free_ports(count: int) -> list[int]:
    """So many ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class SlurmCluster:
    """A running cluster. `conf`: what SLURM_CONF has to say for its commands."""

    def __init__(self, folder: Path, *, grace: int, node_timeout: int, min_job_age: int, apart: bool = False) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._before = _APART if apart else ()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        host = socket.gethostname().partition(".")[0]
        controller_port, *node_ports = free_ports(1 + len(NODES))
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        nodes = [
            _NODE.format(name=name, host=host, port=port, gpus=GPUS_PER_NODE)
            for name, port in zip(NODES, node_ports, strict=True)
        ]
        (folder / "gres.conf").write_text(_GRES)
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.conf.write_text(
            _CONF.format(
                folder=folder,
                host=host,
                user=getpass.getuser(),
                controller_port=controller_port,
                nodes="\n".join(nodes),
                partition=PARTITION,
                urgent=URGENT,
                grace=grace,
                node_timeout=node_timeout,
                min_job_age=min_job_age,
            )
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Slurm's commands speak to this cluster."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return ours | {"SLURM_CONF": str(self.conf)}

    def run(self, *command: str, script: str | None = None, seconds: float = 30) -> str:
        """What a command of Slurm says, given a script or nothing; an AssertionError with its words where it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            input=script or "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=self.folder,
        )
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}"
        return done.stdout

    def start_controller(self, *flags: str) -> None:
        """Start the controller; with no flag it takes up what the one before it had saved."""
        self._start("slurmctld", "-D", *flags)

    def start_node(self, name: str) -> None:
        """Start a node's daemon; it kills what is left of steps that its controller has given up."""
        self._start(f"slurmd.{name}", "-D", "-N", name)

    def kill_controller(self) -> None:
        """SIGKILL to the controller: what it was told in its last seconds it may have forgotten."""
        self._kill("slurmctld")

    def kill_node(self, name: str) -> None:
        """SIGKILL to a node's daemon: its steps live on."""
        self._kill(f"slurmd.{name}")

    def resume_nodes(self) -> None:
        """Have nodes take jobs again that the controller has set aside, as it does where it forgot a job of theirs.

        A job that had ended may run again then; it is ended.
        """
        self.cancel_all()
        for name in NODES:
            with contextlib.suppress(AssertionError):  # one that is well already
                self.run("scontrol", "update", f"nodename={name}", "state=resume")
        self.await_nodes()

    def resume_set_aside(self) -> None:
        """Have only the nodes take jobs again that the controller has set aside; jobs are left alone."""
        for line in self.run("sinfo", "-h", "-N", "-p", PARTITION, "-o", "%N %T").splitlines():
            name, state = line.split()
            if state.startswith(("drain", "down")) and f"slurmd.{name}" in self._daemons:
                self.run("scontrol", "update", f"nodename={name}", "state=resume")

    def hold_partition(self) -> None:
        """Have jobs wait that are submitted from now on."""
        self.run("scontrol", "update", f"partitionname={PARTITION}", "state=down")

    def release_partition(self) -> None:
        """Have them start."""
        self.run("scontrol", "update", f"partitionname={PARTITION}", "state=up")

    def await_nodes(self, count: int = len(NODES)) -> None:
        """Return once so many nodes are idle.

        Raises:
            AssertionError: they are not in half a minute.
        """
        deadline = time.monotonic() + _UP_SECONDS
        while (idle := self._idle_nodes()) < count:
            assert time.monotonic() < deadline, f"{idle} of {count} nodes are idle: {self._states()}; {self.words()}"
            time.sleep(_POLL_SECONDS)

    def rows(self) -> dict[str, tuple[str, str, str]]:
        """Of each job that Slurm knows: its name, state and reason, by its id."""
        lines = self.run("squeue", "-h", "-t", "all", "-o", "%i|%j|%T|%r").splitlines()
        fields = [line.split("|", 3) for line in lines]
        return {one[0]: (one[1], one[2], one[3]) for one in fields}

    def preempt_all(self, seconds: int = 60) -> str:
        """An urgent job that takes every node; its id."""
        flags = ("--parsable", "-p", URGENT, f"-N{len(NODES)}", "--exclusive", "-o", "none")
        return self.run("sbatch", *flags, script=f"#!/bin/sh\nexec sleep {seconds}\n").strip()

    def end_time_of(self, job: str, seconds: int = 0) -> None:
        """Have the time of a running job end so soon; the controller looks at limits each half minute."""
        self.run("scontrol", "update", f"jobid={job}", f"EndTime=now+{seconds}")

    def cancel_all(self) -> None:
        """End every job, and wait until none runs."""
        self.run("scancel", "--user", getpass.getuser())
        deadline = time.monotonic() + _UP_SECONDS
        while self.run("squeue", "-h", "-o", "%i"):
            assert time.monotonic() < deadline, f"jobs do not end: {self.words()}"
            time.sleep(_POLL_SECONDS)

    def words(self) -> str:
        """The last lines of its logs: why something did not come."""
        logs = sorted(self.folder.glob("slurm*.log"))
        return " / ".join(f"{log.name}: {' '.join(log.read_text().splitlines()[-3:])}" for log in logs)

    def close(self) -> None:
        """End the daemons, and whatever they started."""
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=5)
            daemon.kill()
            daemon.wait()
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

    def _start(self, key: str, *flags: str) -> None:
        program = _program(key.partition(".")[0])
        assert program is not None
        with (self.folder / f"{key}.out").open("ab") as output:
            self._daemons[key] = subprocess.Popen(
                [*self._before, program, *flags],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - where tests are killed, nothing is left
            )

    def _kill(self, key: str) -> None:
        daemon = self._daemons.pop(key)
        daemon.kill()
        daemon.wait()

    def _states(self) -> str:
        nodes = self.run("sinfo", "-h", "-N", "-p", PARTITION, "-o", "%N %T %E")
        return "; ".join([*nodes.splitlines(), *(f"{job} {row}" for job, row in self.rows().items())])

    def _idle_nodes(self) -> int:
        try:
            return len(self.run("sinfo", "-h", "-N", "-p", PARTITION, "-t", "idle", "-o", "%N").split())
        except AssertionError:  # the controller does not answer yet
            return 0

    def _processes(self) -> Sequence[int]:
        """The processes that this cluster's daemons started: they know its configuration."""
        mark = f"SLURM_CONF={self.conf}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found


@functools.cache
def cluster_of_tests() -> SlurmCluster:
    """The one cluster of all tests in this process, until it ends."""
    folder = tempfile.TemporaryDirectory(prefix="slurm-")
    running = contextlib.ExitStack()
    atexit.register(running.close)
    running.enter_context(folder)
    return running.enter_context(running_cluster(Path(folder.name) / "cluster"))


@contextlib.contextmanager
def running_cluster(
    folder: Path, *, grace: int = 5, node_timeout: int = 6, min_job_age: int = 300, apart: bool = False
) -> Iterator[SlurmCluster]:
    """A cluster of three idle nodes until the block ends. All in seconds.

    `grace`: what a job that is preempted has left. `node_timeout`: after it a node that says nothing is given up.
    `min_job_age`: how long a job that ended is remembered. `apart`: its daemons and jobs do not see what is mounted
    from here on.
    """
    cluster = SlurmCluster(folder, grace=grace, node_timeout=node_timeout, min_job_age=min_job_age, apart=apart)
    try:
        cluster.start_controller("-c")
        for name in NODES:
            cluster.start_node(name)
        cluster.await_nodes()
        yield cluster
    finally:
        cluster.close()
