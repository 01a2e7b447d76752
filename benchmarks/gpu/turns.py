"""The playground and a training on one card, through a real server."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from gpu.bench import Broken, last_words
from gpu.records import sums, write_records
from gpu.table import Finding, judged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpu.bench import Bench

_LISTENS = re.compile(r"(http://\S+)")
_ENDS = {"completed", "failed", "stopped"}
_ANSWER_SECONDS = 60


class _Server:
    """`modelforge serve` on loopback, with its data in a folder of its own."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench = bench
        stdout, stderr = folder / "server.out", folder / "server.err"
        command = [
            *(sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(folder / "data")),
            *("--model-root", str(bench.model.parent), "--dataset-root", str(folder)),
        ]
        process = bench.start(command, stdout, stderr)
        for _ in bench.looks():
            if (said := _LISTENS.search(stdout.read_text())) is not None:
                self._url = said[1].rstrip("/")
                return
            if process.poll() is not None:
                raise Broken(f"the server ended: {last_words(stderr)}")

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """An answer's JSON.

        Raises:
            Broken: it is an error.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            raise Broken(f"{path} was answered with {error.code}: {error.read(500)!r}") from error

    def ask(self, **which: Any) -> int:
        """Ask the playground; the milliseconds of its answer."""
        body = {"prompt": "What is 3 plus 4?", "max_new_tokens": 16, "temperature": 0, **which}
        answer = self.call("/api/playground/generate", body)
        if not answer["tokens_generated"]:
            raise Broken(f"the playground wrote nothing: {answer}")
        return int(answer["generation_time_ms"])

    def wait_for(self, job_id: str, statuses: set[str]) -> dict[str, Any]:
        """The job, once it has one of the statuses, or has ended."""
        for _ in self._bench.looks():
            job = self.call(f"/api/jobs/{job_id}")
            if job["status"] in statuses | _ENDS:
                return job
        raise AssertionError("the looks never end")


def playground_and_training(bench: Bench) -> Iterator[Finding]:
    """The playground is loaded, a training begins, the playground is asked meanwhile, and then for the new model."""
    sizes = bench.sizes
    folder = bench.room("turns")
    dataset = write_records(folder / "sums.jsonl", sums(sizes.records))
    server = _Server(bench, folder)
    base = str(bench.model)
    times = {"before": server.ask(base_model=base)}
    body = {
        "task": "text-generation",
        "model_name": base,
        "dataset": dataset.path,
        "strategy": "sft",
        "per_device_train_batch_size": sizes.batch,
        "max_seq_length": sizes.length,
        "max_steps": sizes.resume_steps,
        "seed": 7,
        **bench.precision,
    }
    job_id = server.call("/api/start_training", body)["job_id"]
    status = server.wait_for(job_id, {"training"})["status"]
    if status == "training":
        took = server.ask(base_model=base)
        if server.call(f"/api/jobs/{job_id}")["status"] == "training":
            times["meanwhile"] = took
    job = server.wait_for(job_id, set())
    if job["status"] != "completed":
        raise Broken(f"the training {job['status']}: {job.get('error')}")
    times["the new model"] = server.ask(model_id=job["model_id"])
    told = ", ".join(f"{when} {milliseconds} ms" for when, milliseconds in times.items())
    yield judged(
        "playground and training",
        f"training completed; the playground answered {told}",
        "both do their work: asked before, meanwhile and after",
        holds="meanwhile" in times,
        **{when.replace(" ", "_"): float(took) for when, took in times.items()},
    )
