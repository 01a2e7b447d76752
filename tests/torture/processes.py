"""Kills a training's own processes under the real `accelerate launch`: the launcher, the shim, the trainer itself.

Each job is killed in one of these, at a random instant after its first steps. It must be `failed`, with a cause
that names the kill, within five seconds; no process of it may be left when that is said; and the next job, which
waited in the queue, must start by itself: it is the next that is killed.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from support import external_probe as seen
from support.attempt_files import kill_trainers, model_in, processes_of, shim_of, training
from support.running_server import RECORDS, RunningServer, environment

from torture.promises import broken_promises
from trainer_entry.runtime.proc import count_oom_kills

VICTIMS = ("launcher", "shim", "trainer")
_OOM_KILLS_BEFORE = count_oom_kills()
_TOLD_WITHIN_SECONDS = 5.0
_STARTED_WITHIN_SECONDS = 120.0


def torture(folder: Path, seed: int, count: int) -> list[str]:
    """The promises that did not hold, after `count` kills of each."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    data_dir = folder / "data"
    body = training(model_in(folder), "waits", max_steps=10_000_000, queue=True)
    # What `accelerate` loads warns of its own doings: that is not what is tested here.
    command = [sys.executable, "-m", "support.served", str(data_dir), "--accelerate", "--stalled-seconds", "60"]
    server = RunningServer(command, environment(PYTHONWARNINGS="default"))
    broken: list[str] = []
    longest = dict.fromkeys(VICTIMS, 0.0)
    try:
        server.upload(RECORDS).raise_for_status()
        job_id = _request(server, body)
        for number in range(1, count + 1):
            for victim in VICTIMS:
                following = _request(server, body)
                if stuck := _until_it_trains(server, job_id):
                    return [*broken, *stuck]  # there is nothing to kill, now or later
                time.sleep(chance.uniform(0, 0.5))
                seconds, found = _kill(server, data_dir, job_id, victim)
                longest[victim] = max(longest[victim], seconds)
                broken += [f"kill {number} of the {victim}, {job_id}: {what}" for what in found]
                job_id = following
            sys.stdout.write(f"{number} of each, longest {_told(longest)}, {len(broken)} promises broken\n")
            sys.stdout.flush()
        broken += _until_it_trains(server, job_id)
        server.post("/api/stop_training").raise_for_status()
        broken += broken_promises(server, data_dir, chance, still=True)
    finally:
        server.end(signal.SIGTERM)
        kill_trainers(data_dir)
    sys.stdout.write(f"processes, seed {seed}: {count} kills of each, failure told after at most {_told(longest)}\n")
    return broken


def _told(longest: dict[str, float]) -> str:
    return ", ".join(f"{seconds:.2f} s ({victim})" for victim, seconds in longest.items())


def _request(server: RunningServer, body: dict[str, object]) -> str:
    answer = server.post("/api/start_training", body)
    answer.raise_for_status()
    return str(answer.json()["job_id"])


def _until_it_trains(server: RunningServer, job_id: str) -> list[str]:
    """Wait for the first steps of a job that nobody starts but the server."""
    deadline = time.monotonic() + _STARTED_WITHIN_SECONDS
    while not (job := seen.answered(server, f"/api/jobs/{job_id}"))["current_step"]:
        if time.monotonic() > deadline:
            return [f"{job_id} is still {job['status']}, though its turn has come"]
        time.sleep(0.05)
    return []


def _kill(server: RunningServer, data_dir: Path, job_id: str, victim: str) -> tuple[float, list[str]]:
    """Kill one of a job's processes: how long it took until that was told, and what was wrong with it."""
    shim = shim_of(data_dir, job_id)
    os.kill(_pid_of(victim, int(str(shim["pid"])), shim["token"]), signal.SIGKILL)
    killed = time.monotonic()
    while (job := seen.answered(server, f"/api/jobs/{job_id}"))["status"] not in seen.FINAL:
        if time.monotonic() > killed + 4 * _TOLD_WITHIN_SECONDS:
            break
        time.sleep(0.01)
    left, seconds = processes_of(shim["token"]), time.monotonic() - killed
    broken = []
    if seconds > _TOLD_WITHIN_SECONDS:
        broken.append(f"it took {seconds:.1f} s until the job was {job['status']}")
    if left:
        broken.append(f"processes {left} are left when the job is {job['status']}")
    error = job["error"] or {}
    # Where the kernel ended something else on this machine for want of memory, it is taken for the cause.
    kinds = {"Killed"} if count_oom_kills() == _OOM_KILLS_BEFORE else {"Killed", "OutOfMemory"}
    if job["status"] != "failed" or error.get("kind") not in kinds:
        broken.append(f"the job is {job['status']}, and its error {json.dumps(error)}")
    return seconds, broken


def _pid_of(victim: str, shim: int, token: object) -> int:
    """The shim starts the launcher, and that the trainer."""
    if victim == "shim":
        return shim
    words = {pid: _words(pid) for pid in processes_of(token) if pid != shim}
    wanted = "accelerate.commands.launch" if victim == "launcher" else "support.scripted_trainer"
    [found] = [pid for pid, said in words.items() if said[1:3] == ["-m", wanted] or said[2:4] == ["-m", wanted]]
    return found


def _words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
