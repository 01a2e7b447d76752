"""The promises of the service, checked from outside: over HTTP, in the files, in /proc and in the log's SQLite file.

Of the server's own code only `modelforge.audit.verify` is asked, as one witness among others; the digests, the
spools and everything else are read and compared anew. Each check gives the promises that it found broken, as
sentences.
"""

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import external_probe as seen
from support.external_probe import ACTIVE, FINAL, Row
from support.running_server import RunningServer

from modelforge.audit import verify
from modelforge.layout import Layout

_ENDS = {"TrainingCompleted", "TrainingStopped", "TrainingFailed"}


@dataclass(frozen=True)
class Asked:
    """A request that was sent, and what was answered: status 0 where the connection broke first."""

    method: str
    path: str
    key: str | None = None
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


def broken_promises(
    server: RunningServer,
    data_dir: Path,
    chance: random.Random,
    asked: Iterable[Asked] = (),
    *,
    still: bool = False,
    patience: float = 3.0,
) -> list[str]:
    """What does not hold. `still`: no trainer writes now, so the log has all that the spools have.

    What the server does after it has answered (sweeping, adopting, reading on) may take `patience` seconds: only
    what is still broken then is.
    """
    requests = tuple(asked)
    deadline = time.monotonic() + patience
    while True:
        rows = seen.rows_of(data_dir)
        broken = [
            *of_the_log(data_dir, rows),
            *of_requests(server, rows, requests),
            *of_files(server, data_dir, rows),
            *of_spools(server, data_dir, rows, still=still),
            *of_processes(server, data_dir),
            *of_standby(data_dir),
            *of_subscribers(server, rows, chance),
            *of_replay(server),
        ]
        if not broken or time.monotonic() > deadline:
            return broken
        time.sleep(0.2)


def of_the_log(data_dir: Path, rows: list[Row]) -> Iterator[str]:
    """Positions and versions without a gap, every digest as it was chained, and `verify` has nothing to say."""
    versions: Counter[str] = Counter()
    digest = "0" * 64
    for number, row in enumerate(rows, start=1):
        versions[row.stream] += 1
        if row.position != number:
            yield f"record {number} of the log has position {row.position}"
        if row.version != versions[row.stream]:
            yield f"position {row.position}: version {row.version} of {row.stream} is its number {versions[row.stream]}"
        content = hashlib.sha256(row.raw.encode()).hexdigest()
        columns = [json.dumps(column, ensure_ascii=False) for column in (*row[:8], content)]
        digest = hashlib.sha256(f"{digest}[{','.join(columns)}]".encode()).hexdigest()
        if row.digest != digest:
            yield f"position {row.position}: the digest is not that of the record and the one before"
            digest = row.digest
    yield from (f"verify: position {fault.position}: {fault.what}" for fault in verify(Layout(data_dir)).faults)


def of_requests(server: RunningServer, rows: list[Row], asked: tuple[Asked, ...]) -> Iterator[str]:
    """What was answered is in the log and visible; no request is there twice."""
    keys = Counter(row.data["key"]["value"] for row in rows if row.kind == "command" and row.data.get("key"))
    yield from (f"the request with key {key} is in the log {count} times" for key, count in keys.items() if count > 1)
    starts = sum(row.type == "StartTraining" for row in rows)
    jobs = sum(row.type == "TrainingRequested" for row in rows)
    if starts != jobs:
        yield f"{starts} requests for a training led to {jobs} jobs"
    logged = {event["position"]: event["digest"] for event in seen.events(server)}
    yield from (f"/api/events lacks {row.position}" for row in rows if logged.get(row.position) != row.digest)
    for one in asked:
        if one.succeeded:
            if one.key is not None and keys[one.key] != 1:
                yield f"{one.path} was answered {one.status}, and its key is in the log {keys[one.key]} times"
            yield from (f"{one.path} was answered {one.status}, but {what}" for what in _lost(server, one, rows))


def _lost(server: RunningServer, asked: Asked, rows: list[Row]) -> Iterator[str]:
    """What an answer said that does not stand in the log, or is not shown."""
    answer, verb = asked.answer, asked.path.rpartition("/")[2]
    if asked.method == "DELETE" and asked.path.startswith("/api/datasets/"):
        if "DatasetDeleted" not in {row.type for row in rows if row.stream == f"dataset:{verb}"}:
            yield f"the log has no deletion of dataset {verb}"
        if server.get(asked.path).status_code != 404:
            yield f"dataset {verb} is still shown"
    elif asked.method == "DELETE":
        events = {row.type for row in rows if row.stream == f"model:{verb}"}
        if not {"ModelDeleted", "ModelFilesRemoved"} <= events:
            yield f"the log has only {sorted(events)} of model {verb}"
        if server.get(asked.path).status_code != 404:
            yield f"model {verb} is still shown"
    elif verb == "upload_dataset":
        shown = {one["filename"]: one["sha256"] for one in server.get("/api/datasets").json()["datasets"]}
        if shown.get(answer["filename"]) != answer["sha256"]:
            yield f"{answer['filename']} is not listed with its content"
        if answer["sha256"] not in _uploaded(rows):
            yield f"the log has no upload of {answer['filename']} with its content"
    else:
        events = {row.type for row in rows if row.stream == answer["job_id"] and row.kind == "event"}
        job = server.get(f"/api/jobs/{answer['job_id']}")
        ended = job.status_code == 200 and job.json()["status"] in FINAL
        if job.status_code != 200 or "TrainingRequested" not in events:
            yield f"there is no job {answer['job_id']}"
        elif verb in {"stop_training", "cancel"} and not (ended and events & _ENDS):
            yield f"{answer['job_id']} has not ended"
        elif verb == "checkpoint" and not ("CheckpointRequested" in events and (ended or "CheckpointSaved" in events)):
            yield f"{answer['job_id']} has saved no checkpoint"
        elif verb == "resume" and job.json()["attempt"] < answer["attempt"]:
            yield f"{answer['job_id']} has no attempt {answer['attempt']}"


def of_files(server: RunningServer, data_dir: Path, rows: list[Row]) -> Iterator[str]:
    """Datasets and models are files, whole, and there are no others; nothing lies about half done."""
    listed = {one["sha256"] for one in server.get("/api/datasets").json()["datasets"]}
    yield from (f"dataset {sha256} is listed, but in no record" for sha256 in listed - _uploaded(rows))
    files = {path.name: path for path in (data_dir / "datasets").iterdir()}
    for name in _kept(rows):
        path, sha256 = files.pop(name, None), name.partition(".")[0]
        if path is None or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            yield f"the file of dataset {sha256} is {'missing' if path is None else 'not what was uploaded'}"
    yield from (f"datasets/{name} is no dataset" for name in files)
    models = {one["job_id"] for one in server.get("/api/models").json()["models"]}
    folders = {path.name for path in (data_dir / "models").iterdir()}
    busy = {job["job_id"] for job in seen.jobs(server) if job["status"] in ACTIVE}
    yield from (f"models/{name} is no model" for name in folders - models - busy)
    for name in models:
        if not any(path.stat().st_size for path in (data_dir / "models" / name).glob("*.safetensors")):
            yield f"the model of {name} is listed, but its weights are not there"
    for folder in ("tmp", "trash"):
        yield from (f"{folder}/{path.name} was left behind" for path in (data_dir / folder).iterdir())


def of_spools(server: RunningServer, data_dir: Path, rows: list[Row], *, still: bool) -> Iterator[str]:
    """What a trainer wrote is in the log, each message once, in order; and its steps are in the metrics."""
    for job in seen.jobs(server):
        shown = [(metric["attempt"], metric["step"]) for metric in seen.metrics(server, job["job_id"])]
        written: list[tuple[int, int]] = []
        began: dict[int, int] = {}
        running = None
        for number in range(1, job["attempt"] + 1):
            spool = seen.spool(data_dir / "jobs" / job["job_id"] / f"attempt-{number}")
            sequence = [message["seq"] for message in spool]
            name = f"{job['job_id']} attempt {number}"
            if sequence != list(range(1, len(sequence) + 1)):
                yield f"{name}: the messages in the spool are numbered {sequence}"
            if not still and number == job["attempt"] and job["status"] in ACTIVE:
                running = number
            logged = seen.logged_numbers(rows, job["job_id"], number)
            if logged != (sequence[: len(logged)] if running == number else sequence):
                yield f"{name}: of messages 1 to {len(sequence)} the log has {_told(logged, sequence)}"
            written += [(number, message["step"]) for message in spool if message["type"] == "step"]
            began.update((number, message.get("resumed_step", 0)) for message in spool if message["type"] == "started")
        # Steps that a later attempt made again, having gone on from an earlier one, are not shown twice.
        kept = [
            (number, step)
            for number, step in written
            if all(step <= begin for later, begin in began.items() if later > number)
        ]
        if shown != (kept[: len(shown)] if running else kept):
            yield f"{job['job_id']}: of {len(kept)} steps in the spools /metrics has {_told(shown, kept)}"


def of_processes(server: RunningServer, data_dir: Path) -> Iterator[str]:
    """Every living process of an attempt is one of the running attempt, which has one shim."""
    statuses = {job["job_id"]: (job["status"], job["attempt"]) for job in seen.jobs(server)}
    active = [(job_id, attempt) for job_id, (status, attempt) in statuses.items() if status in ACTIVE]
    if len(active) > 1:
        yield f"{len(active)} jobs are active at once: {active}"
    shims: Counter[tuple[str, int]] = Counter()
    alive = seen.living()
    for token, attempt in seen.tokens(data_dir).items():
        for process in alive.get(token, []):
            shims[attempt] += process.is_shim
            if attempt not in active:
                yield f"process {process.pid} of {attempt} lives, but the job is {statuses.get(attempt[0])}"
    yield from (f"{attempt} has {shims[attempt]} shims" for attempt in active if shims[attempt] != 1)


def of_standby(data_dir: Path) -> Iterator[str]:
    """At most one trainer stands by: none of a server that is gone."""
    given = set(seen.tokens(data_dir))
    waiting = [token for token in seen.standing_by(data_dir) if token not in given]
    if len(waiting) > 1:
        yield f"{len(waiting)} trainers stand by: {waiting}"


def of_subscribers(server: RunningServer, rows: list[Row], chance: random.Random) -> Iterator[str]:
    """A subscriber from the beginning, and one from anywhere, hear every event of a job once and in order."""
    events = [(row.position, row.type, row.stream) for row in rows if row.kind == "event" and "job_id" in row.data]
    head = rows[-1].position if rows else 0
    for after in (0, chance.randint(0, head)):
        wanted = [event for event in events if event[0] > after]
        heard = [
            (message["position"], message["type"], message["job_id"])
            for message in seen.heard(server, after, until=wanted[-1][0] if wanted else after)
            if message["position"] <= head
        ]
        if heard != wanted:
            yield f"/ws/training?after={after} told of {_told(heard, wanted)} of {len(wanted)} events"


def of_replay(server: RunningServer) -> Iterator[str]:
    """What is answered now is what the log, folded anew, leads to."""
    while True:
        head = seen.head(server)
        status = server.get("/api/training_status").json()
        models = server.get("/api/models").json()["models"]
        details = [server.get(f"/api/models/{one['id']}").json() for one in models]
        datasets = server.get("/api/datasets").json()["datasets"]
        if seen.head(server) == head:
            break
    state = server.get(f"/api/state?at={head}").json()
    for name, live in (("status", status), ("models", details), ("datasets", datasets)):
        if state[name] != live:
            yield f"{name} at position {head} are {live} live, and {state[name]} replayed"
    if models != [{name: one[name] for name in shown} for one, shown in zip(state["models"], models, strict=False)]:
        yield f"the list of models is {models} live, and {state['models']} replayed"


def _uploaded(rows: list[Row]) -> set[str]:
    """The content of every revision of every dataset."""
    return {row.data["sha256"] for row in rows if row.type == "DatasetUploaded"}


def _kept(rows: list[Row]) -> set[str]:
    """The names of the files of every revision of every dataset that was not deleted."""
    kept: dict[str, set[str]] = {}
    for row in rows:
        if row.type == "DatasetUploaded":
            sha256, made = row.data["sha256"], row.data.get("records_sha256")
            kept.setdefault(row.stream, set()).update(
                [f"{sha256}.jsonl"] if made is None else [f"{made}.jsonl", f"{sha256}.upload"]
            )
        elif row.type == "DatasetDeleted":
            kept.pop(row.stream, None)
    return set().union(*kept.values())


def _told(found: list[Any], wanted: list[Any]) -> str:
    """A difference in words."""
    lacking, beyond = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    if not lacking and not beyond:
        return "all, in another order"
    return f"{len(found)} (not {[*lacking][:5]}, too often {[*beyond][:5]})"
