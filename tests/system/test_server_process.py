"""The server's own process: small, and without the training stack."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.running_server import RunningServer

Start = Callable[..., str]
_HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "numpy")
_MOST_RESIDENT_KIB = 80 * 1024


def test_nothing_that_trains_is_loaded_by_the_server() -> None:
    program = f"import modelforge.server, sys; print([name for name in {_HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_it_stays_small_while_a_job_trains(server: RunningServer, start: Start) -> None:
    start(server, "waits", max_steps=100_000)
    for _ in range(200):
        server.get("/api/training_status")
    proc = Path(f"/proc/{server.process.pid}")
    assert "libtorch" not in (proc / "maps").read_text()
    (resident,) = [int(line.split()[1]) for line in (proc / "status").read_text().splitlines() if "VmRSS" in line]
    assert resident < _MOST_RESIDENT_KIB


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--host", "0.0.0.0"], "--tls-cert"),  # noqa: S104 - that is what is refused
        (["--port", "99999"], "port"),
        (["--data-dir", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_server_that_cannot_start_says_why(flags: list[str], says: str, tmp_path: Path) -> None:
    usual = {"--data-dir": str(tmp_path), "--port": "0"}
    usual.update(zip(flags[::2], flags[1::2], strict=True))
    command = [sys.executable, "-m", "modelforge", "serve", *itertools.chain(*usual.items())]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode == 1
    assert ended.stderr.startswith("modelforge: ")
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named(server: RunningServer, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "modelforge", "serve", "--data-dir", str(tmp_path / "other"), "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode == 1
    assert port in ended.stderr
