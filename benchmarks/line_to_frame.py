"""From a line of a trainer to a frame at a client, while it trains: `python benchmarks/line_to_frame.py`.

`modelforge serve`, a real training of the built-in model with short texts, and a client of `/ws/training`. The client
watches the spool too: a line's moment is when the kernel says that the file was changed last. What is told is the time
from there to the frame that has the line's step. Nothing in the server or the trainer is other than always; the trainer
takes all the processors that there are.

And what a server takes of a processor while a job runs that says nothing.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import struct
import time
from ctypes import CDLL
from pathlib import Path

import aiohttp
import requests
from figures import Figure, Program, Rounds
from server_process import Server, cpu_seconds, served
from support.attempt_files import model_in
from support.recital import step as said_step
from support.recital import wait as says_nothing
from support.recital import write_recital
from support.running_server import scripted_server

_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")
_RECORDS = b"".join(b'{"input": "What is %d?", "output": "A number."}\n' % number for number in range(300))
P99 = Figure(
    name="Line of a trainer to a frame at a client, p99, while it trains",
    unit="ms",
    at_most=50,
    note="From the moment at which the spool was changed to the WebSocket frame with that step, of every step of a "
    "real training on all processors.",
)
MEDIAN = Figure(name="The same, median", unit="ms", note="Of the same lines.")
QUIET = Figure(
    name="Processor of a server with a job that says nothing",
    unit="ms a second",
    note="User and system time of the server's process, of a job whose trainer waits.",
)


class Spooled:
    """When each step was written to a spool."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._libc = CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._path = Path()
        self._offset = 0
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    async def watch(self, path: Path) -> None:
        """Follow a spool, that may be made later."""
        self._path = path
        while self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_MODIFY) < 0:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        self._look()

    def _read(self) -> None:
        os.read(self._descriptor, 4096)
        self._look()

    def _look(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines, end, _ = file.read().rpartition(b"\n")
            written = os.fstat(file.fileno()).st_mtime_ns / 1e9
        self._offset += len(lines) + len(end)
        for line in lines.splitlines():
            message = json.loads(line)
            if message["type"] == "step":
                self.at[message["step"]] = written


def begin(server: Server, steps: int) -> str:
    """Start a training of the built-in model with short texts; its id."""
    with requests.Session() as session:
        session.headers.update(server.headers)
        files = {"file": ("short.jsonl", _RECORDS)}
        session.post(f"{server.url}/api/upload_dataset", files=files, timeout=60).raise_for_status()
        body: dict[str, str | int] = {
            "task": "text-generation",
            "model_name": "smollm2-135m-instruct",
            "dataset": "short.jsonl",
        }
        body |= {"max_steps": steps, "logging_steps": 1, "per_device_train_batch_size": 1, "max_seq_length": 64}
        answer = session.post(f"{server.url}/api/start_training", json=body, timeout=120)
        if answer.status_code != requests.codes.ok:
            raise SystemExit(f"The training was refused: {answer.text}")
        return str(answer.json()["job_id"])


async def delays(server: Server, steps: int, seconds: float) -> list[float]:
    """How late the frame of each step was, in milliseconds, until the job ends or the time is over."""
    spooled = Spooled()
    late: list[float] = []
    async with aiohttp.ClientSession(headers=server.headers) as session:
        async with session.ws_connect(f"{server.url}/ws/training") as socket:
            job_id = await asyncio.to_thread(begin, server, steps)
            spool = server.data_dir / "jobs" / job_id / "attempt-1" / "stdout.jsonl"
            watching = asyncio.create_task(spooled.watch(spool))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for frame in socket:
                        now = time.time()
                        told = json.loads(frame.data)
                        written = spooled.at.get(told["current_step"]) if told["type"] == "MetricsLogged" else None
                        if written is not None:
                            late.append((now - written) * 1000)
                        if told["type"] == "TrainingFailed":
                            raise SystemExit(f"The training failed: {told}")
                        if told["type"] in {"TrainingCompleted", "TrainingStopped"}:
                            break
            watching.cancel()
        async with session.post(f"{server.url}/api/stop_training") as answer:
            await answer.read()
    return late


def quiet_milliseconds(folder: Path, seconds: float) -> float:
    """What the server takes a second beside a trainer that waits."""
    server = scripted_server(folder / "data", "--stalled-seconds", "3600", TESTS_COLD="1")
    try:
        model = model_in(folder)
        write_recital(model, [said_step(1, 10), says_nothing(3600)])
        server.upload(_RECORDS).raise_for_status()
        body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", "output_name": "waits"}
        job_id = server.post("/api/start_training", body).json()["job_id"]
        server.wait_for(job_id, "training")
        time.sleep(3)
        before = cpu_seconds(server.process.pid)
        time.sleep(seconds)
        return (cpu_seconds(server.process.pid) - before) / seconds * 1000
    finally:
        server.post("/api/stop_training")
        server.end()


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--steps", type=int, help="of the training, at most (400)")
    parser.add_argument("--seconds", type=float, help="that the training is followed, at most (60)")


def measure(rounds: Rounds) -> None:
    """One training, then a job that waits."""
    steps = rounds.options.steps or (10 if rounds.quick else 400)
    seconds = rounds.options.seconds or (60 if rounds.quick else 75)
    with served(rounds.folder()) as server:
        late = asyncio.run(delays(server, steps, seconds))
    if len(late) < 2:  # noqa: PLR2004 - of fewer there is no median
        raise SystemExit("No step came in time")
    print(f"  {len(late)} steps, the latest {max(late):.0f} ms")
    rounds.tell(P99, [statistics.quantiles(late, n=100, method="inclusive")[98]])
    rounds.tell(MEDIAN, [statistics.median(late)])
    rounds.tell(QUIET, [quiet_milliseconds(rounds.folder(), 5 if rounds.quick else 20)])


PROGRAM = Program(__doc__, measure, P99, MEDIAN, QUIET, options=options)

if __name__ == "__main__":
    PROGRAM.main()
