"""Kills what can be killed, again and again, and checks from outside that every promise holds.

    python -m torture server --seed 1 --kills 1000     the server, at random instants of a training
    python -m torture syscalls --seed 1 --count 0      the server, at every system call of each command
    python -m torture processes --seed 1 --count 100   the launcher, the shim and the trainer of a training
    python -m torture cluster --seed 1 --kills 100     server, slurmd, shim, trainer and slurmctld of a real Slurm
    python -m torture stops --seed 1 --count 20        no kills: a real training, stopped and resumed

`--count` is, for `syscalls`, how many points of each command, chosen by the seed; 0 takes every one. The trainers
of all but the last are scripted, everything else is real. The exit code is 1 if a promise was broken.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support import external_probe as seen
from support.attempt_files import kill_trainers, model_in, training
from support.running_server import RECORDS, RunningServer, environment

from torture import cluster, processes, stops, syscalls
from torture.promises import broken_promises

_CHECKED_EVERY = 25


def start_training(server: RunningServer, folder: Path) -> str:
    """A job that makes a step every 20 ms until it is stopped."""
    server.upload(RECORDS).raise_for_status()
    body = training(model_in(folder), "waits", max_steps=10_000_000)
    answer = server.post("/api/start_training", body)
    answer.raise_for_status()
    return str(answer.json()["job_id"])


def torture(folder: Path, seed: int, kills: int) -> list[str]:
    """The promises that did not hold while the server was killed at random."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    data_dir = folder / "data"
    # With a place for another job, so that a trainer stands by when the server is killed.
    command = [sys.executable, "-m", "support.served", str(data_dir), "--standby"]
    server = RunningServer(command, environment(MODELFORGE_MAX_CONCURRENT_JOBS="2"))
    broken: list[str] = []
    try:
        job_id = start_training(server, folder)
        for number in range(1, kills + 1):
            time.sleep(chance.expovariate(1 / 0.15))
            server.end(signal.SIGKILL)
            server.start()
            job = seen.answered(server, f"/api/jobs/{job_id}")
            if job["status"] not in {"training", "starting"}:
                broken.append(f"after kill {number} the job is {job['status']}, attempt {job['attempt']}")
            if number % _CHECKED_EVERY == 0:
                found = broken_promises(server, data_dir, chance)
                broken += [f"after kill {number}: {what}" for what in found]
                sys.stdout.write(f"{number} kills, step {job['current_step']}\n")
                sys.stdout.flush()
        server.post("/api/stop_training").raise_for_status()
        broken += broken_promises(server, data_dir, chance, still=True)
        # Killed before it had begun an attempt, the server begins another one in its place.
        begun = [path for path in data_dir.glob("jobs/*/attempt-*/stdout.jsonl") if path.stat().st_size]
        if len(begun) != 1:
            broken.append(f"attempts that began: {sorted(path.parent.name for path in begun)}")
        steps = len(seen.metrics(server, job_id))
    finally:
        server.end()
        kill_trainers(data_dir)
    sys.stdout.write(f"server, seed {seed}: {kills} kills, {steps} steps\n")
    return broken


SCENARIOS: dict[str, tuple[Callable[[Path, int, int], list[str]], int]] = {
    "server": (torture, 100),
    "syscalls": (syscalls.torture, 3),
    "processes": (processes.torture, 3),
    "cluster": (cluster.torture, 3),
    "stops": (stops.torture, 3),
}
"""Each scenario, and how often it kills unless told."""


def main() -> int:
    """Run, and say what did not hold; the exit code is 1 if anything did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", default="all", choices=["all", *SCENARIOS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", "--count", type=int, help="for each scenario that is run")
    options = parser.parse_args()
    broken: list[str] = []
    for name, (scenario, usual) in SCENARIOS.items():
        if options.scenario in {"all", name}:
            count = usual if options.kills is None else options.kills
            with tempfile.TemporaryDirectory() as folder:
                found = scenario(Path(folder).resolve(), options.seed, count)
            sys.stdout.write("".join(f"BROKEN: {name}: {promise}\n" for promise in found))
            sys.stdout.flush()
            broken += found
    sys.stdout.write(f"seed {options.seed}: {len(broken)} promises broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
