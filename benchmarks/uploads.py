"""A large upload: what it takes of memory, whether the server answers meanwhile, and how fast it is checked.

    python benchmarks/uploads.py [--megabytes 1000] [--rounds 3]

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
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from modelforge.app import serve
from modelforge.datasets.validation.lines import chunks
from modelforge.datasets.validation.process import check_dataset
from modelforge.datasets.validation.record_errors import decoders
from modelforge.settings import load_settings

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
    await serve(load_settings({"data_dir": data_dir, "port": 0}, environ={}))
    task.cancel()
    return noted


def memory_of(pid: int) -> int:
    """The bytes that a process has in memory; those that it shares are divided among who has them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they did."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


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
            self.server = max(self.server, memory_of(self._pid))
            self.children = max(self.children, sum(map(memory_of, descendants(self._pid))))


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


def measure_upload(folder: Path, path: Path) -> None:
    """Upload the file to a server, and print what that took."""
    lags = folder / "lags.json"
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder / "data"), str(lags)], stdout=subprocess.PIPE, text=True
    )
    if server.stdout is None:
        raise AssertionError("it was asked for")
    url = server.stdout.readline().split("listens on ")[1].split()[0]
    time.sleep(1)
    idle = memory_of(server.pid)
    peaks = Peaks(server.pid)
    peaks.start()
    os.kill(server.pid, signal.SIGUSR1)
    seconds = upload(url, path)
    peaks.ended.set()
    peaks.join()
    server.terminate()
    server.wait()
    noted = sorted(json.loads(lags.read_text()))
    starting = idle_check(folder)
    mib, size = 1 << 20, path.stat().st_size
    print(f"upload of {size / 1e6:.0f} MB over multipart, checked: {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s")
    print(f"  server: {idle / mib:.0f} MiB idle, {(peaks.server - idle) / mib:.0f} MiB above it at most")
    print(f"  check: {starting / mib:.0f} MiB when idle, {(peaks.children - starting) / mib:.0f} MiB above it at most")
    p99, most = noted[int(len(noted) * 0.99)] * 1000, noted[-1] * 1000
    print(f"  event loop: late by {p99:.1f} ms at the 99th percentile of {len(noted)} looks, {most:.0f} ms at most")


def idle_check(folder: Path) -> int:
    """The memory of the check's process with everything imported and nothing to do."""
    program = "import time, modelforge.datasets.validation.pipeline; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=folder)
    if process.stdout is None:
        raise AssertionError("it was asked for")
    process.stdout.readline()
    found = memory_of(process.pid)
    process.kill()
    process.wait()
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        data_dir, lags = options.serve
        lags.write_text(json.dumps(uvloop.run(serve_with_probe(data_dir))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "records.jsonl"
        write_records(path, options.megabytes * 1_000_000)
        measure_upload(folder, path)
        decoding, checking, hashing = [], [], []
        for _ in range(options.rounds):
            decoding.append(seconds_of_decoding(path))
            checking.append(seconds_of_checking(path, folder, "0" * 64))
            hashing.append(seconds_of_checking(path, folder, None))
        limit = statistics.median(decoding)
        print(f"decode_lines in one thread: {limit:.2f} s")
        for what, seconds in (("check of an upload, whose hash is known", checking), ("check with hash", hashing)):
            middle = statistics.median(seconds)
            print(f"{what}: {middle:.2f} s, {limit / middle:.2f} of the speed of decode_lines")


if __name__ == "__main__":
    main()
