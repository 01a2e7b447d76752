"""The JSON files in the folders of attempts and checkpoints."""

from collections.abc import Callable

from msgspec import Struct

from trainer_entry.wire.job import JobSpec


class AttemptSpec(Struct, frozen=True, kw_only=True, gc=False):
    """`spec.json`: a job's spec for one attempt. `token` marks every process of the attempt as ours.

    `gpus`: those that the attempt may use, as CUDA names them; null where there are none to share. `tokenized`: the
    folder in which tokenized records are kept for later attempts; null where none are.
    """

    job: JobSpec
    attempt: int
    token: str
    cpu_threads: int
    resume_from: str | None = None
    gpus: tuple[str, ...] | None = None
    tokenized: str | None = None


STANDBY = "--standby"
"""What a shim, and a trainer, are started with that wait for an attempt."""


class StandbyOrder(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt that a trainer which stands by is to be. `set`, `unset`: how its environment changes for it."""

    folder: str
    grace_seconds: float
    set: dict[str, str] = {}
    unset: tuple[str, ...] = ()


CHECKPOINT_MANIFEST = "manifest.json"
"""Written last into a checkpoint, once everything else of it is on the disk."""


class CheckpointManifest(Struct, frozen=True, kw_only=True, gc=False):
    """What a whole checkpoint consists of: the size in bytes of each file, by its path in the folder."""

    step: int
    sizes: dict[str, int]

    def is_met(self, size_of: Callable[[str], int]) -> bool:
        """Whether every file has the size that is named here; `size_of` gives the size of the file at a path."""
        return all(size_of(path) == size for path, size in self.sizes.items())


class ShimReport(Struct, frozen=True, kw_only=True, gc=False):
    """`shim.json`: who runs the attempt. Pid, start time in clock ticks and boot id name one process."""

    pid: int
    start_time: int
    boot_id: str
    token: str


class ExitReport(Struct, frozen=True, kw_only=True, gc=False):
    """`exit.json`: how the launcher ended, written by the shim once every descendant is gone.

    `stop_signalled`: a stop reached the shim. `killed_after_grace`: the trainer did not end by itself.
    `max_rss_kib`: largest resident set of any process of the tree. `oom_kills`: processes of this machine that
    the kernel killed for want of memory meanwhile.
    """

    code: int | None
    signal: int | None
    stop_signalled: bool
    killed_after_grace: bool
    max_rss_kib: int
    user_seconds: float
    system_seconds: float
    oom_kills: int = 0


class TokenizedEntry(Struct, frozen=True, kw_only=True, gc=False):
    """What the server reads of `entry.json` beside tokenized records.

    `records`: the SHA-256 of each file that they were made of; empty where that is not told.
    """

    records: tuple[str, ...] = ()
