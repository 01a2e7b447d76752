"""Kills the server at random instants of a training, again and again, and checks that it cost nothing.

    python tests/torture.py --seed 1 --kills 1000

The trainer is scripted, everything else is real. What is checked is read from outside: the trainer's own spool
against the log, the processes, and the log's digests.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from running_server import RECORDS, RunningServer, environment

from modelforge.audit import verify
from modelforge.layout import Layout


def start_training(server: RunningServer, folder: Path) -> str:
    """A job that makes a step every 20 ms until it is stopped."""
    model = folder / "base"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    server.upload(RECORDS).raise_for_status()
    body = {
        "task": "text-generation",
        "model_name": str(model),
        "dataset": "data.jsonl",
        "output_name": "waits",
        "max_steps": 10_000_000,
    }
    answer = server.post("/api/start_training", body)
    answer.raise_for_status()
    return str(answer.json()["job_id"])


def steps_in_spool(attempt: Path) -> list[int]:
    """What the trainer wrote, by its own file."""
    lines = (json.loads(line) for line in (attempt / "stdout.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["type"] == "step"]


def steps_in_log(server: RunningServer, job_id: str) -> list[int]:
    """What the log has of it."""
    steps: list[int] = []
    after, more = 0, True
    while more:
        page = server.get(f"/api/jobs/{job_id}/metrics?after={after}").json()
        steps += [metric["step"] for metric in page["metrics"]]
        after, more = page["last_position"], page["has_more"]
    return steps


def torture(folder: Path, seed: int, kills: int) -> list[str]:
    """The promises that did not hold."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    data_dir = folder / "data"
    server = RunningServer([sys.executable, "-m", "served", str(data_dir)], environment())
    job_id = start_training(server, folder)
    attempt = data_dir / "jobs" / job_id / "attempt-1"
    broken: list[str] = []
    for number in range(1, kills + 1):
        time.sleep(chance.expovariate(1 / 0.15))
        server.end(signal.SIGKILL)
        server.start()
        job = server.get(f"/api/jobs/{job_id}").json()
        if (job["status"], job["attempt"]) not in {("training", 1), ("starting", 1)}:
            broken.append(f"after kill {number} the job is {job['status']}, attempt {job['attempt']}")
        if number % 50 == 0:
            sys.stdout.write(f"{number} kills, step {job['current_step']}\n")
            sys.stdout.flush()
    server.post("/api/stop_training").raise_for_status()
    spool, log = steps_in_spool(attempt), steps_in_log(server, job_id)
    if log != spool:
        broken.append(f"{len(set(spool) - set(log))} steps lost, {len(log) - len(set(log))} doubled")
    if list(data_dir.glob("jobs/*/attempt-*")) != [attempt]:
        broken.append("more than one attempt was made")
    server.end()
    broken += [f"{fault.position}: {fault.what}" for fault in verify(Layout(data_dir)).faults]
    sys.stdout.write(f"seed {seed}: {kills} kills, {len(spool)} steps written, {len(log)} in the log\n")
    return broken


def main() -> int:
    """Run, and say what did not hold; the exit code is 1 if anything did not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broken = torture(Path(folder), options.seed, options.kills)
    for promise in broken:
        sys.stdout.write(f"BROKEN: {promise}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
