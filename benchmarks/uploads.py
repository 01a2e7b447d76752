"""A large upload: what it takes of memory, whether the server answers meanwhile, and how fast it is checked.

    python benchmarks/uploads.py [--megabytes 500] [--rounds 3]

The file is made of records of a prompt and an answer, about a kilobyte each. Printed are: the peak memory of the
server and of the processes that check, each above what it has when idle; the lag of the server's event loop during
the upload; and the time of a check beside that of msgspec's `decode_lines` in one thread on the same file, in turns.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import uvloop
from figures import Figure, Program, Rounds
from server_process import descendants, proportional_bytes, started

from modelforge.datasets.validation.lines import chunks
from modelforge.datasets.validation.process import check_dataset
from modelforge.datasets.validation.record_errors import decoders
from modelforge.server import serve
from modelforge.settings import load_settings

_LIMIT = "decode_lines, one thread"
_SENT = "During an upload of 500 MB of records over multipart, looked at fifty times a second."
MEMORY = Figure(name="Memory of the server above idle during an upload", unit="MiB", at_most=64, note=_SENT)
CHECK_MEMORY = Figure(name="Memory of the check above idle", unit="MiB", at_most=64, note=_SENT)
LAG = Figure(
    name="Event loop late during an upload, p99",
    unit="ms",
    at_most=5,
    note="How much later than asked for a task wakes that sleeps a millisecond at a time, in the server's loop.",
)
LONGEST_LAG = Figure(name="The same, at most", unit="ms", note="The latest of them all.")
CHECK = Figure(
    name="Check of an upload / decode_lines",
    unit="MB/s",
    yardstick=_LIMIT,
    at_least=0.6,
    note="The whole check in processes of its own, from their start to their end, of a file whose hash is known; "
    "beside msgspec's `decode_lines` of the same file into the records' type, in one thread, and nothing else.",
)
HASHED = Figure(name="The same with its hash", unit="MB/s", yardstick=_LIMIT, note="The hash is made as well.")
_BOUNDARY = "a-boundary-that-stands-in-no-record"
_PART = 1 << 20
_LOOK_SECONDS = 0.02
_PROBE_SECONDS = 0.001


def write_records(path: Path, size: int) -> None:
    """Write records until the file has `size` bytes; none of them twice."""
    draw = random.Random(7)  # noqa: S311 - no secret
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    written = number = 0
    with path.open("w") as file:
        while written < size:
            number += 1
            asked, said = draw.choices(words, k=50), draw.choices(words, k=110)
            record = {
                "input": f"{' '.join(asked)} {number}?",
                "output": f"{' '.join(said[:80])}.\n\n{' '.join(said[80:])}",
            }
            written += file.write(json.dumps(record) + "\n")


async def serve_with_probe(data_dir: Path) -> list[float]:
    """The server, and beside it a task that notes by how many seconds it wakes too late."""
    noted: list[float] = []

    async def probe() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_PROBE_SECONDS)
            noted.append(time.perf_counter() - before - _PROBE_SECONDS)

    def start_again(_number: int, _frame: object) -> None:
        noted.clear()

    signal.signal(signal.SIGUSR1, start_again)
    task = asyncio.create_task(probe())
    await serve(load_settings({"data_dir": data_dir, "port": 0, "cold": True}, environ={}))
    task.cancel()
    return noted


class Peaks(threading.Thread):
    """The most memory that the server had, and all its children together."""

    def __init__(self, server: int) -> None:
        super().__init__(daemon=True)
        self.server = self.children = 0
        self.ended = threading.Event()
        self._pid = server

    def run(self) -> None:
        """Look until the end."""
        while not self.ended.wait(_LOOK_SECONDS):
            self.server = max(self.server, proportional_bytes(self._pid))
            self.children = max(self.children, sum(map(proportional_bytes, descendants(self._pid))))


def upload(url: str, path: Path) -> float:
    """Send the file as a form; the seconds until the answer."""
    head = (f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n').encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    began = time.perf_counter()
    connection.putrequest("POST", "/api/upload_dataset")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
    connection.putheader("Content-Length", str(len(head) + path.stat().st_size + len(tail)))
    connection.endheaders(head)
    with path.open("rb") as file:
        while part := file.read(_PART):
            connection.send(part)
    connection.send(tail)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != http.client.OK:
        raise SystemExit(f"The upload was answered with {answer.status}: {said[:500]!r}")
    return time.perf_counter() - began


def seconds_of_decoding(path: Path) -> float:
    """What every check of such a file has to do: decode each line into its type, in one thread."""
    decoder = decoders["input_output"]
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        for chunk in chunks(file):
            decoder.decode_lines(chunk.data or b"")
    return time.perf_counter() - began


def seconds_of_checking(path: Path, folder: Path, sha256: str | None) -> float:
    """The whole check in processes of its own, from their start to their end. `sha256`: None to make it too."""
    checking = check_dataset(path, "file", filename=path.name, records=folder / "records", limit=1 << 40, sha256=sha256)
    began = time.perf_counter()
    asyncio.run(checking)
    return time.perf_counter() - began


def measure_upload(rounds: Rounds, folder: Path, path: Path) -> None:
    """Upload the file to a server, and tell what that took."""
    lags = folder / "lags.json"
    command = [sys.executable, __file__, "--serve", str(folder / "data"), str(lags)]
    with started(folder / "data", command) as server:
        time.sleep(1)
        idle = proportional_bytes(server.pid)
        peaks = Peaks(server.pid)
        peaks.start()
        os.kill(server.pid, signal.SIGUSR1)
        seconds = upload(server.url, path)
        peaks.ended.set()
        peaks.join()
    noted = sorted(json.loads(lags.read_text()))
    starting = idle_check(folder)
    mib = 1 << 20
    rate = path.stat().st_size / 1e6 / seconds
    print(f"  {rate:.0f} MB/s; idle: server {idle / mib:.0f} MiB, check {starting / mib:.0f} MiB")
    rounds.tell(MEMORY, [(peaks.server - idle) / mib])
    rounds.tell(CHECK_MEMORY, [(peaks.children - starting) / mib])
    rounds.tell(LAG, [noted[int(len(noted) * 0.99)] * 1000])
    rounds.tell(LONGEST_LAG, [noted[-1] * 1000])


def idle_check(folder: Path) -> int:
    """The memory of the check's process with everything imported and nothing to do."""
    program = "import time, modelforge.datasets.validation.pipeline; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=folder)
    if process.stdout is None:
        raise AssertionError("it was asked for")
    process.stdout.readline()
    found = proportional_bytes(process.pid)
    process.kill()
    process.wait()
    return found


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--megabytes", type=int, help="of the file (500)")
    parser.add_argument("--serve", nargs=2, type=Path, help=argparse.SUPPRESS)


def measure(rounds: Rounds) -> None:
    """One upload to a server, then checks and decoding in turn."""
    if rounds.options.serve is not None:
        data_dir, lags = rounds.options.serve
        lags.write_text(json.dumps(uvloop.run(serve_with_probe(data_dir))))
        return
    folder = rounds.folder()
    path = folder / "records.jsonl"
    write_records(path, (rounds.options.megabytes or (50 if rounds.quick else 500)) * 1_000_000)
    measure_upload(rounds, folder, path)
    megabytes = path.stat().st_size / 1e6

    def decoding(_folder: Path) -> float:
        return megabytes / seconds_of_decoding(path)

    def checking(folder: Path) -> float:
        return megabytes / seconds_of_checking(path, folder, "0" * 64)

    def checking_and_hashing(folder: Path) -> float:
        return megabytes / seconds_of_checking(path, folder, None)

    checks, hashes, limit = rounds.interleave(checking, checking_and_hashing, decoding)
    rounds.tell(CHECK, checks, limit)
    rounds.tell(HASHED, hashes, limit)


PROGRAM = Program(__doc__, measure, MEMORY, CHECK_MEMORY, LAG, LONGEST_LAG, CHECK, HASHED, options=options)

if __name__ == "__main__":
    PROGRAM.main()
