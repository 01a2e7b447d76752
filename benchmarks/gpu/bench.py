"""Where a run takes place: its device, its model and sizes, the time left, and the processes that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from msgspec import Struct

from modelforge.machine.child_environment import child_environment
from modelforge.machine.devices import cpu_count, visible_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Device = Literal["cuda", "cpu"]
_T = TypeVar("_T")
_POLL_SECONDS = 0.02
_LAST_WORDS = 600


class Broken(Exception):
    """A process did not do what a line needs of it; the message has its last words."""


class OutOfTime(Broken):
    """The line's limit, or that of the whole run, is reached."""

    def __init__(self) -> None:
        super().__init__("cut off by the limit of the line, or of the whole run")


class Sizes(Struct, frozen=True, kw_only=True):
    """How large the lines are. A batch is of rows, a length of tokens; `warm_steps` come before a speed is taken."""

    records: int
    learning_rate: float
    """Of the lines that learn: higher than the default, for there are few steps."""
    steps: int
    compared_steps: int
    policy_steps: int
    completion: int
    batch: int
    length: int
    speed_length: int
    warm_steps: int
    speed_steps: int
    rounds: int
    resume_steps: int
    save_steps: int
    memory_scale: int
    huge_batch: int
    huge_length: int
    longest_row: int
    """Tokens that the model made here has room for."""


FULL = Sizes(
    learning_rate=2e-3,
    records=256,
    steps=40,
    compared_steps=20,
    policy_steps=10,
    completion=32,
    batch=8,
    length=256,
    speed_length=512,
    warm_steps=10,
    speed_steps=30,
    rounds=3,
    resume_steps=80,
    save_steps=20,
    memory_scale=1,
    huge_batch=256,
    huge_length=4096,
    longest_row=8192,
)
TINY = Sizes(
    learning_rate=1e-2,
    records=24,
    steps=20,
    compared_steps=8,
    policy_steps=3,
    completion=8,
    batch=2,
    length=64,
    speed_length=64,
    warm_steps=2,
    speed_steps=4,
    rounds=1,
    resume_steps=60,
    save_steps=10,
    memory_scale=16,
    huge_batch=1024,
    huge_length=1024,
    longest_row=1024,
)


class Bench:
    """One run's place. Every wait is cut at `deadline` (of time.monotonic), which the line that runs has set."""

    def __init__(self, device: Device, sizes: Sizes, folder: Path, model: Path, at_once: int) -> None:
        """`at_once`: how many trainings may share the card in lines that measure no speed."""
        self.device = device
        self.sizes = sizes
        self.model = model
        self.at_once = at_once
        self.deadline = float("inf")
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def on_gpu(self) -> bool:
        """Whether figures that only a GPU shows are held to their bounds."""
        return self.device == "cuda"

    @property
    def precision(self) -> dict[str, Any]:
        """The parameters that say in what is computed: bf16 on a GPU, and 32 bits where a CPU would crawl."""
        return {"bf16": self.on_gpu, "fp16": False}

    @property
    def threads(self) -> int:
        """The processor's share of each of the trainings at once."""
        return max(1, cpu_count() // self.at_once)

    def room(self, name: str) -> Path:
        """A folder of that name, which was not there before."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        return folder

    def environment(self, **added: str) -> dict[str, str]:
        """What the server gives its trainers, on one card or none, and never a hub."""
        # With several cards in sight transformers would divide each batch among them.
        cards = {"CUDA_VISIBLE_DEVICES": visible_gpus()[0] if self.on_gpu else ""}
        if "CUDA_VISIBLE_DEVICES" not in os.environ:  # then the driver counted them, in this order
            cards["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        threads = {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        return child_environment(**threads, **cards, **added) | {"HF_HUB_OFFLINE": "1"}

    def start(self, command: Sequence[str], stdout: Path, stderr: Path) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, so that all of it can be ended.

        Raises:
            OutOfTime: it is too late to start one.
        """
        if time.monotonic() > self.deadline:
            raise OutOfTime
        with stdout.open("ab") as out, stderr.open("ab") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.environment(),
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit code.

        Raises:
            OutOfTime: the deadline comes first.
        """
        for _ in self.looks():
            if (code := process.poll()) is not None:
                return code
        raise AssertionError("the looks never end")

    def looks(self) -> Iterator[None]:
        """Look again and again, until the deadline.

        Raises:
            OutOfTime: at the deadline.
        """
        while True:
            yield
            if time.monotonic() > self.deadline:
                raise OutOfTime
            time.sleep(_POLL_SECONDS)

    def together(self, works: Sequence[Callable[[], _T]]) -> list[_T | Broken]:
        """Do several works, as many at once as the card is shared by; in order, what came of each, or how it broke.

        Those that are done stand, also where the time is over before the others are.
        """
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                return list(pool.map(_caught, works))
            except BaseException:
                self.deadline = 0.0  # whoever waits in another thread is not to wait longer
                raise

    def end_all(self) -> None:
        """Kill what the line has left, with all that it started."""
        for process in self._processes:
            kill(process)
        self._processes.clear()


def _caught(work: Callable[[], _T]) -> _T | Broken:
    try:
        return work()
    except Broken as broken:
        return broken


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its session with signal 9."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_words(log: Path) -> str:
    """The end of a log, as one line."""
    return " / ".join(log.read_text(errors="replace").splitlines())[-_LAST_WORDS:]
