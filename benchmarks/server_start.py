"""How long until the server answers, and how much memory it takes: `python benchmarks/server_start.py [ROUNDS]`.

Side by side in one run, interleaved: the server, and a Python that only imports aiohttp and answers one path.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

BARE = """
import sys
from aiohttp import web
async def health(request): return web.json_response({})
app = web.Application()
app.router.add_get("/api/health", health)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""
PORT = 18_765
LONGEST_START_SECONDS = 60


def measure(command: list[str], port: int) -> tuple[float, int]:
    """Seconds from the start to the first answer, and KiB resident then."""
    began = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/api/health", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                if server.poll() is not None or time.perf_counter() - began > LONGEST_START_SECONDS:
                    sys.exit(f"{command} did not answer")
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{server.pid}/status").read_text()
        (resident,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
        return seconds, resident
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure both in turn, and print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    ours: list[tuple[float, int]] = []
    bare: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        serve = [sys.executable, "-m", "modelforge", "serve", "--port", str(PORT), "--data-dir", folder]
        for _ in range(rounds):
            ours.append(measure(serve, PORT))
            bare.append(measure([sys.executable, "-c", BARE, str(PORT + 1)], PORT + 1))
    for name, rows in (("modelforge", ours), ("bare aiohttp", bare)):
        seconds, resident = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<14} {seconds:6.2f} s to the first answer   {resident / 1024:6.1f} MiB resident")
    print(f"ratio          {statistics.median(a[0] / b[0] for a, b in zip(ours, bare, strict=True)):6.2f}")


if __name__ == "__main__":
    main()
