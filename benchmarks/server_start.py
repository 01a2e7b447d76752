"""How long until the server answers, and how much memory it takes: `python benchmarks/server_start.py [--rounds 10]`.

Side by side in one run, interleaved: the server, and a Python that only imports aiohttp and answers one path.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from figures import Figure, Program, Rounds
from server_process import resident_mib

BARE = """
import sys
from aiohttp import web
async def health(request): return web.json_response({})
app = web.Application()
app.router.add_get("/api/health", health)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""
LONGEST_START_SECONDS = 60
_NOTE = (
    "From the start of the process in an empty data directory to its first answer on `/api/health`, and the resident "
    "memory then; beside a Python that imports aiohttp and answers that path."
)
ANSWERS = Figure(name="Start of the server to its first answer", unit="s", at_most=1, note=_NOTE)
BESIDE = Figure(name="The same / bare aiohttp", unit="s", yardstick="bare aiohttp", note=_NOTE)
RESIDENT = Figure(name="Memory of a server that has started", unit="MiB", at_most=80, note=_NOTE)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """The process is ended with the block."""
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def start(command: list[str], port: int, folder: Path) -> tuple[float, float]:
    """Seconds from the start to the first answer, and MiB resident then."""
    began = time.perf_counter()
    said = folder.with_suffix(".stderr")
    with said.open("wb") as stderr:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    with ended(server):
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/api/health", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                if server.poll() is not None or time.perf_counter() - began > LONGEST_START_SECONDS:
                    raise SystemExit(f"{command} did not answer: {said.read_text()[-500:]}") from None
                time.sleep(0.005)
        return time.perf_counter() - began, resident_mib(server.pid)


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def modelforge(folder: Path) -> tuple[float, float]:
    """The server, in an empty data directory."""
    port = free_port()
    return start(
        [sys.executable, "-m", "modelforge", "serve", "--port", str(port), "--data-dir", str(folder)], port, folder
    )


def bare_aiohttp(folder: Path) -> tuple[float, float]:
    """A Python that answers one path."""
    port = free_port()
    return start([sys.executable, "-c", BARE, str(port)], port, folder)


def measure(rounds: Rounds) -> None:
    """Both in turn."""
    ours, bare = rounds.interleave(modelforge, bare_aiohttp, rounds=None if rounds.quick else max(5, rounds.count))
    seconds = [one for one, _ in ours]
    rounds.tell(ANSWERS, seconds)
    rounds.tell(BESIDE, seconds, [one for one, _ in bare])
    rounds.tell(RESIDENT, [mib for _, mib in ours])


PROGRAM = Program(__doc__, measure, ANSWERS, BESIDE, RESIDENT)

if __name__ == "__main__":
    PROGRAM.main()
