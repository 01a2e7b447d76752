"""Stops one real training at random moments and resumes it, and compares it with one that was left alone.

A stop may come while the trainer still loads, in the first step, in the middle: the seed decides. What must hold:
the metrics are those of steps 1 to N, once each, and every loss is that of the uninterrupted run, to within the
noise of floats, dropout included: the order of the data, the optimizer, the schedule and the random state go on.
"""

import math
import random
import sys
import time
from pathlib import Path

from support.running_server import RECORDS, RunningServer, real_server
from support.tiny_model import build_tiny_model

STEPS_A_STOP = 600
LONGEST_WAIT = 14.0
NOISE = 1e-5


def torture(folder: Path, seed: int, count: int) -> list[str]:
    """The promises that did not hold while a job was stopped `count` times."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    model = build_tiny_model(folder / "model")
    server = real_server(folder)
    try:
        server.upload(RECORDS).raise_for_status()
        body = {
            "task": "text-generation",
            "model_name": str(model),
            "dataset": "data.jsonl",
            "max_steps": count * STEPS_A_STOP,
            "lora_dropout": 0.1,
            "save_total_limit": 2,
        }
        whole = server.post("/api/start_training", body).json()["job_id"]
        server.wait_for(whole, seconds=1800)
        job_id = server.post("/api/start_training", body).json()["job_id"]
        broken = _stop_and_resume(server, job_id, chance, count)
        job = server.wait_for(job_id, seconds=1800)
        if job["status"] != "completed":
            broken.append(f"the job is {job['status']}: {job['error']}")
        broken += _compare(_losses(server, whole), _losses(server, job_id), count * STEPS_A_STOP)
        sys.stdout.write(
            f"stops, seed {seed}: {count} stops, {job['attempt']} attempts, {count * STEPS_A_STOP} steps\n"
        )
    finally:
        server.end()
    return broken


def _stop_and_resume(server: RunningServer, job_id: str, chance: random.Random, count: int) -> list[str]:
    broken: list[str] = []
    for number in range(1, count + 1):
        time.sleep(chance.uniform(0, LONGEST_WAIT))
        stopped = server.post("/api/stop_training").json()
        if stopped.get("status") != "stopped":
            return [*broken, f"stop {number} came too late: {stopped}"]
        step = server.get(f"/api/jobs/{job_id}").json()["current_step"]
        sys.stdout.write(f"{number} stops, step {step}\n")
        sys.stdout.flush()
        resumed = server.post(f"/api/jobs/{job_id}/resume")
        if resumed.status_code != 202:
            return [*broken, f"resume {number}: {resumed.text}"]
    return broken


def _losses(server: RunningServer, job_id: str) -> list[tuple[int, float]]:
    losses: list[tuple[int, float]] = []
    after, more = 0, True
    while more:
        page = server.get(f"/api/jobs/{job_id}/metrics?after={after}").json()
        losses += [(metric["step"], metric["loss"]) for metric in page["metrics"]]
        after, more = page["last_position"], page["has_more"]
    return losses


def _compare(whole: list[tuple[int, float]], resumed: list[tuple[int, float]], total: int) -> list[str]:
    broken = [
        f"the steps of {what} are not 1 to {total}, once each"
        for what, losses in (("the uninterrupted run", whole), ("the stopped one", resumed))
        if [step for step, _ in losses] != list(range(1, total + 1))
    ]
    worst = max((abs(a - b) / abs(a) for (_, a), (_, b) in zip(whole, resumed, strict=False)), default=math.inf)
    sys.stdout.write(f"final loss {whole[-1][1]:.9f} and {resumed[-1][1]:.9f}; largest difference {worst:.1e}\n")
    return [*broken, f"a loss differs by {worst:.1e}"] if worst > NOISE else broken
