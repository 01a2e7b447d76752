"""Kills all that a training on a cluster consists of, on a real Slurm with three nodes: the server, the daemon of a
node, the shim, the trainer, and the controller.

First the server is ended and started again and again with three jobs that run and ten that wait, and twenty jobs go
through the queue. Then trainings come and go, up to six at once; one after another something is killed at a random
instant, every second time within a second of a submission, and started again a moment later. Every 25 kills all jobs
are let come to their end, and every promise is checked.
"""

import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import requests
from support import external_probe as seen
from support.attempt_files import kill_trainers, model_in, training
from support.running_server import RECORDS, RunningServer, environment
from support.slurm_cluster import NODES, SlurmCluster, missing_programs, running_cluster

from torture.cluster_promises import SHIM, TRAINER, Attempt, Process, Witness, broken_on_cluster, kill
from torture.promises import Asked, broken_promises

Victim = Literal["server", "node", "shim", "trainer", "controller"]
VICTIMS: tuple[Victim, ...] = ("server", "node", "shim", "trainer", "controller")
_AT_ONCE = 6
_CHECKED_EVERY = 25
_STEPS = 100
_ENDS_WITHIN_SECONDS = 240.0
_MENDED_EVERY_SECONDS = 2.0
_RUNNING, _PENDING, _QUEUED = 3, 10, 20


class Campaign:
    """A cluster, a server on it, and what was asked of it."""

    def __init__(self, folder: Path, cluster: SlurmCluster, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - no secret
        self.cluster = cluster
        self.data_dir = folder / "data"
        shared = folder / "shared"
        shared.mkdir()
        self.model = model_in(folder)
        self.witness = Witness(shared / "jobs")
        self.asked: list[Asked] = []
        self.kills: Counter[str] = Counter()
        self._mended_at = 0.0
        command = [sys.executable, "-m", "support.served", str(self.data_dir), "--stalled-seconds", "60"]
        variables = {
            "MODELFORGE_LAUNCHER": "slurm",
            "MODELFORGE_SHARED_ROOT": str(shared),
            "MODELFORGE_CLUSTER_PARTITION": "main",
            "SLURM_CONF": str(cluster.conf),
        }
        self.server = RunningServer(command, environment(**variables))
        self.server.upload(RECORDS).raise_for_status()

    def close(self) -> None:
        self.server.end(signal.SIGKILL)
        kill_trainers(self.data_dir)

    def submit(self, max_steps: int = _STEPS) -> str:
        """A training that makes a step each 20 ms, and is tried again where something ends it; its id."""
        key = uuid.uuid4().hex
        body = training(self.model, "waits", max_steps=max_steps, max_restarts=5)
        answer = self.server.post("/api/start_training", body, headers={"Idempotency-Key": key})
        answer.raise_for_status()
        self.asked.append(Asked("POST", "/api/start_training", key, answer.status_code, answer.json()))
        return str(answer.json()["job_id"])

    def unended(self) -> list[dict[str, Any]]:
        return [job for job in seen.jobs(self.server) if job["status"] not in seen.FINAL]

    def watch(self, seconds: float) -> None:
        """Let so much time pass, with open eyes."""
        until = time.monotonic() + seconds
        while True:
            self.witness.look()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def mend_nodes(self) -> None:
        """Do what an administrator does with nodes that a controller has set aside, as it had forgotten jobs."""
        if time.monotonic() < self._mended_at + _MENDED_EVERY_SECONDS:
            return
        self._mended_at = time.monotonic()
        try:
            self.cluster.resume_set_aside()
        except AssertionError:  # the controller does not answer yet
            return

    def kill(self, victim: Victim, after: float) -> None:
        """Kill something, and start it again where it does not come by itself, so many seconds later."""
        match victim:
            case "server":
                self.server.end(signal.SIGKILL)
                self.watch(after)
                self.server.start()
            case "node":
                name = self.chance.choice(NODES)
                self._note(victim)
                self.cluster.kill_node(name)
                self.watch(after)
                self.cluster.start_node(name)
            case "controller":
                self._note(victim)
                self.cluster.kill_controller()
                is_alone = self.chance.random() < 0.7
                if not is_alone:  # a server starts with nobody to ask
                    self.server.end(signal.SIGKILL)
                    self.server.spawn()
                self.watch(after)
                self.cluster.start_controller()
                if not is_alone:
                    self.server.listen()
                    self.kills["server beside the controller"] += 1
            case "shim" | "trainer":
                if not self._kill_process(victim):
                    return
        self.kills[victim] += 1

    def _note(self, victim: Victim) -> None:
        """It is killed under every attempt that waits or runs."""
        for job in self.unended():
            self.witness.killed[job["job_id"], job["attempt"]].add(victim)

    def _kill_process(self, victim: Literal["shim", "trainer"]) -> bool:
        """The newest that there is, or comes within ten seconds."""
        module = SHIM if victim == "shim" else TRAINER
        until = time.monotonic() + 10
        while time.monotonic() < until:
            found: list[Process] = [one for one in self.witness.look() if one.module == module]
            if found:
                one = max(found, key=lambda process: process.attempt) if self.chance.random() < 0.5 else found[0]
                self.witness.killed[one.attempt].add(victim)
                return kill(one, signal.SIGKILL)
            time.sleep(0.05)
        return False

    def settle(self) -> list[str]:
        """Wait until every job has ended, and check everything."""
        until = time.monotonic() + _ENDS_WITHIN_SECONDS
        while (left := self.unended()) and time.monotonic() < until:
            self.mend_nodes()
            self.watch(0.3)
        broken = [f"{job['job_id']}, attempt {job['attempt']}, is still {job['status']}" for job in left]
        broken += broken_promises(self.server, self.data_dir, self.chance, self.asked, still=True)
        until = time.monotonic() + 15  # a job that a controller runs anew, having forgotten its end, leaves at once
        while found := list(broken_on_cluster(self.server, self.witness, seen.rows_of(self.data_dir))):
            if time.monotonic() > until:
                break
            self.mend_nodes()
            self.watch(0.5)
        return broken + found


def torture(
    folder: Path,
    seed: int,
    kills: int,
    victims: Sequence[Victim] = VICTIMS,
    *,
    restarts: int | None = None,
    queued: int = _QUEUED,
) -> list[str]:
    """The promises that did not hold, after half as many restarts as `kills`, a queue, and `kills` kills of each."""
    if missing := missing_programs():
        say(f"cluster: not run, Slurm is not installed here: {', '.join(missing)}")
        return []
    with running_cluster(folder / "cluster") as cluster:
        campaign = Campaign(folder, cluster, seed)
        try:
            broken = restart(campaign, (kills + 1) // 2 if restarts is None else restarts)
            broken += queue(campaign, queued)
            broken += kill_at_random(campaign, [victim for victim in victims for _ in range(kills)])
            jobs = seen.jobs(campaign.server)
        finally:
            campaign.close()
    ends = Counter(str(job["status"]) for job in jobs)
    say(f"cluster, seed {seed}: kills {dict(campaign.kills)}, {len(jobs)} jobs, ends {dict(ends)}")
    for (done, kind), count in sorted(campaign.witness.kinds.items()):
        say(f"  {count} attempts failed by {kind} after {done}")
    return list(dict.fromkeys(broken))


def kill_at_random(campaign: Campaign, victims: list[Victim]) -> list[str]:
    """Kill these, in any order, while trainings come and go."""
    chance, broken = campaign.chance, list[str]()
    chance.shuffle(victims)
    for number, victim in enumerate(victims, start=1):
        campaign.mend_nodes()
        early = chance.random() < 0.5
        while len(campaign.unended()) >= _AT_ONCE:
            campaign.mend_nodes()
            campaign.watch(0.3)
        try:
            campaign.submit()
            campaign.watch(chance.uniform(0, 1) if early else chance.uniform(1, 3))
            campaign.kill(victim, chance.uniform(0, 1))
        except (AssertionError, requests.RequestException) as error:
            return [*broken, f"kill {number}, of the {victim}: {error!r}"]
        if number % _CHECKED_EVERY == 0 or number == len(victims):
            found = campaign.settle()
            broken += [f"after kill {number}: {what}" for what in found]
            say(f"{number} kills {dict(campaign.kills)}, {len(broken)} promises broken")
            for what in found:
                say(f"  {what}")
    return broken


def restart(campaign: Campaign, count: int) -> list[str]:
    """End the server again and again, with three jobs that run and ten that wait: each is what it was."""
    if not count:
        return []
    running = [campaign.submit(10_000_000) for _ in range(_RUNNING)]
    for job_id in running:
        campaign.server.wait_for(job_id, "training")
    campaign.cluster.hold_partition()
    waiting = [campaign.submit(20) for _ in range(_PENDING)]
    for job_id in waiting:
        campaign.server.wait_for(job_id, "queued")
    broken = []
    before, rows = _standing(campaign), _pending(campaign)
    for number in range(1, count + 1):
        campaign.server.end(campaign.chance.choice([signal.SIGKILL, signal.SIGTERM]))
        campaign.server.start()
        campaign.watch(campaign.chance.uniform(0, 0.5))
        if (now := _standing(campaign)) != before:
            broken.append(f"after restart {number} the jobs are {now}, and were {before}")
        if (found := _pending(campaign)) != rows:
            broken.append(f"after restart {number} Slurm's jobs are {found}, and were {rows}")
    for job_id in running:
        campaign.server.post(f"/api/jobs/{job_id}/stop").raise_for_status()
    campaign.cluster.release_partition()
    ends = {job_id: campaign.server.wait_for(job_id) for job_id in running + waiting}
    broken += _unless(ends, running, "stopped") + _unless(ends, waiting, "completed") + campaign.settle()
    say(f"{count} restarts with {_RUNNING} running and {len(rows)} pending jobs, {len(broken)} promises broken")
    return broken


def queue(campaign: Campaign, count: int) -> list[str]:
    """So many jobs at once: all are completed."""
    if not count:
        return []
    jobs = [campaign.submit(20) for _ in range(count)]
    ends = {job_id: campaign.server.wait_for(job_id) for job_id in jobs}
    broken = _unless(ends, jobs, "completed") + campaign.settle()
    say(f"a queue of {count} jobs, {len(broken)} promises broken")
    return broken


def _unless(ends: dict[str, dict[str, object]], jobs: list[str], status: str) -> list[str]:
    """The jobs that did not come to this end at their first attempt."""
    found = {job_id: (ends[job_id]["status"], ends[job_id]["attempt"]) for job_id in jobs}
    return [f"{job_id} is {end}" for job_id, end in found.items() if end != (status, 1)]


def _standing(campaign: Campaign) -> dict[Attempt, str]:
    """Each job that has not ended, and what it is."""
    return {(job["job_id"], job["attempt"]): job["status"] for job in campaign.unended()}


def _pending(campaign: Campaign) -> dict[str, str]:
    """The jobs of Slurm that wait, by their ids."""
    return {one: name for one, (name, state, _) in campaign.cluster.rows().items() if state == "PENDING"}


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
