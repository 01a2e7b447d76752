"""The commands under which the torture kills the server, and one trial of one: prepare, ask, and clean up."""

import shutil
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from support import external_probe as seen
from support.attempt_files import kill_trainers, model_in, order, training
from support.running_server import RECORDS, RunningServer, environment

from torture.promises import Asked

_MORE = b'{"input": "one more question", "output": "one more answer"}\n'


@dataclass(frozen=True)
class Prepared:
    """A data directory with a dataset, a model and a stopped job, to be copied back to where it was made."""

    folder: Path
    model: Path
    stopped: str

    @classmethod
    def make(cls, folder: Path) -> "Prepared":
        model = model_in(folder)
        trial = Trial(cls(folder, model, ""))
        trial.server.upload(RECORDS).raise_for_status()
        trial.start_job("completes")
        stopped = trial.start_job("obeys")
        trial.server.post("/api/stop_training").raise_for_status()
        trial.server.end(signal.SIGTERM)
        (folder / "data").rename(folder / "prepared")
        return cls(folder, model, stopped)


class Trial:
    """One server on a copy of what was prepared, and one command, which has one key however often it is sent."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.data_dir = prepared.folder / "data"
        self.key = uuid.uuid4().hex
        self.running = self.waiting = ""
        if prepared.stopped:
            shutil.copytree(prepared.folder / "prepared", self.data_dir)
        # A look at the spool is calls too: seldom enough not to be counted instead of the command's own.
        calm = ("--one-thread", "--read-seconds", "0.3", "--stalled-seconds", "60")
        self.server = RunningServer([sys.executable, "-m", "support.served", str(self.data_dir), *calm], environment())

    def body(self, behaviour: str, **fields: object) -> dict[str, object]:
        return training(self.prepared.model, behaviour, **fields)

    def start_job(self, behaviour: str, **fields: object) -> str:
        """A job, once it has made its first steps, or waits for its turn."""
        answer = self.server.post("/api/start_training", self.body(behaviour, **fields))
        assert answer.status_code == 200, answer.text
        job_id = str(answer.json()["job_id"])
        if answer.json()["status"] != "queued":
            self.server.wait_for(job_id, "training", "completed")
            while not seen.metrics(self.server, job_id):
                pass
        if behaviour == "completes":
            self.server.wait_for(job_id)
        return job_id

    def ask(self, method: str, path: str, **options: Any) -> Asked:
        """Send the request; a connection that breaks is an answer too."""
        key = None if method == "DELETE" else self.key
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            answer = requests.request(method, self.server.url + path, headers=headers, timeout=60, **options)
            return Asked(method, path, key, answer.status_code, answer.json())
        except requests.RequestException:
            return Asked(method, path, key)

    def end_jobs(self) -> None:
        """Take every job out of the queue, and stop the one that runs."""
        jobs = seen.jobs(self.server)
        for job in jobs:
            if job["status"] == "queued":
                self.server.post(f"/api/jobs/{job['job_id']}/cancel")
        for job in jobs:
            if job["status"] in seen.ACTIVE:
                self.server.post("/api/stop_training")
                self.server.wait_for(job["job_id"], seconds=20)

    def close(self) -> None:
        """Leave nothing: no server, no trainer, no directory."""
        self.server.end(signal.SIGKILL)
        kill_trainers(self.data_dir)
        shutil.rmtree(self.data_dir)


@dataclass(frozen=True)
class Command:
    """What is prepared, what is asked (nothing: something happens by itself), and the last record of it.

    `last`: the type of the last record that the command leads to; None where its answer is the end of it.
    """

    name: str
    prepare: Callable[[Trial], None]
    ask: Callable[[Trial], Asked] | None
    happen: Callable[[Trial], None] | None = None
    last: str | None = None


def _nothing(trial: Trial) -> None:
    pass


def _with_a_dataset(trial: Trial) -> None:
    """One of two revisions, of which another dataset has one too."""
    for content in (RECORDS, RECORDS + _MORE):
        trial.server.upload(content, "more.jsonl").raise_for_status()


def _running(trial: Trial) -> None:
    trial.running = trial.start_job("obeys")


def _running_and_waiting(trial: Trial) -> None:
    trial.running = trial.start_job("obeys")
    trial.waiting = trial.start_job("obeys", queue=True)


def _ordering(what: str) -> Callable[[Trial], None]:
    return lambda trial: order(trial.data_dir, trial.running, what)


def _starting(**fields: object) -> Callable[[Trial], Asked]:
    return lambda trial: trial.ask("POST", "/api/start_training", json=trial.body("obeys", **fields))


def _uploading(filename: str) -> Callable[[Trial], Asked]:
    return lambda trial: trial.ask("POST", "/api/upload_dataset", files={"file": (filename, RECORDS + _MORE)})


def _stop(trial: Trial) -> Asked:
    return trial.ask("POST", "/api/stop_training")


def _about(verb: str, job: Callable[[Trial], str]) -> Callable[[Trial], Asked]:
    return lambda trial: trial.ask("POST", f"/api/jobs/{job(trial)}/{verb}")


def _killed_with_leftovers(trial: Trial) -> None:
    """A trainer that goes on alone, and what a crash may leave of uploads and deletions."""
    _running(trial)
    trial.server.end(signal.SIGKILL)
    order(trial.data_dir, trial.running, "step")
    (trial.data_dir / "tmp" / "half").write_bytes(b"an upload that was cut off")
    (trial.data_dir / "datasets" / f"{'0' * 64}.jsonl").write_bytes(b"one that was never recorded")
    (trial.data_dir / "trash" / "gone").mkdir()
    (trial.data_dir / "trash" / "gone" / "weights").write_bytes(b"half removed")


SERVER_START = Command("server-start", _killed_with_leftovers, ask=None, last="MetricsLogged")
SERVER_STOP = Command("server-stop", _running, ask=None, happen=lambda trial: trial.server.process.terminate())
COMMANDS = (
    Command("start", _nothing, _starting(), last="MetricsLogged"),
    Command("start-queued", _running, _starting(queue=True)),
    Command("stop", _running, _stop),
    Command("cancel", _running_and_waiting, _about("cancel", lambda trial: trial.waiting)),
    Command("resume", _nothing, _about("resume", lambda trial: trial.prepared.stopped), last="MetricsLogged"),
    Command("upload", _nothing, _uploading("new.jsonl")),
    Command("upload-revision", _nothing, _uploading("data.jsonl")),
    Command("delete", _nothing, lambda trial: trial.ask("DELETE", "/api/models/1")),
    Command("delete-dataset", _with_a_dataset, lambda trial: trial.ask("DELETE", "/api/datasets/more.jsonl")),
    Command("ingest", _running, None, _ordering("step"), last="MetricsLogged"),
    Command("launch-next", _running_and_waiting, None, _ordering("finish"), last="MetricsLogged"),
    Command("checkpoint", _running, _about("checkpoint", lambda trial: trial.running), last="CheckpointSaved"),
    SERVER_START,
    SERVER_STOP,
)
