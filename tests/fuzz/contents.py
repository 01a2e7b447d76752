"""What lies on a server that is fuzzed, so that requests reach jobs, models and datasets; and who sends them there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from schemathesis.core.parameters import ParameterLocation
from support.attempt_files import training
from support.running_server import RECORDS

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from schemathesis import Case
    from support.running_server import RunningServer

_UPLOADS = {
    "data.jsonl": RECORDS,
    "table.csv": b"input,output\na,b\nc,d\n",
    "list.json": b'[{"document": "a b", "summary": "a"}]',
    "pairs \xe4 #1.jsonl": b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
}
_MOST_WAITING = 5
_LED = 0.7
_NEEDED = ("task", "model_name", "dataset", "file", "purpose", "model", "training_file", "messages", "prompt", "input")
_TOKENS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens")
_BEHAVIOURS = ("completes", "waits", "raises", "dies", "garbage", "nan")


class Contents:
    """What a server has, as it was at the last look."""

    def __init__(self, server: RunningServer, model: Path, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self._model = model
        self._known: dict[str, list[Any]] = {}
        self._crowded = False

    def tend(self) -> None:
        """Bring back what was deleted, let no queue grow without end, and look at what there is."""
        there = {one["filename"] for one in self._server.get("/api/datasets").json()["datasets"]}
        for name, content in _UPLOADS.items():
            if name not in there:
                self._server.upload(content, name)
        if "data.jsonl" not in there:
            self._server.upload(RECORDS + b'{"input": "another", "output": "revision"}\n')
        jobs = self._server.get("/api/jobs?limit=200").json()["jobs"]
        waiting = [job["job_id"] for job in jobs if job["status"] == "queued"]
        self._crowded = len(waiting) > _MOST_WAITING
        for job_id in waiting[_MOST_WAITING:]:
            self._server.post(f"/api/jobs/{job_id}/cancel")
        if len(self._server.get("/api/models").json()["models"]) < 2:
            for behaviour in ("completes", "raises", "completes"):
                self.train(behaviour)
        self._known = {
            "job_id": [job["job_id"] for job in self._server.get("/api/jobs?limit=50").json()["jobs"]],
            "model_id": [model["id"] for model in self._server.get("/api/models").json()["models"]],
            "filename": [one["filename"] for one in self._server.get("/api/datasets").json()["datasets"]],
            "name": [one["name"] for one in self._server.get("/api/tokens").json()["tokens"]],
            "webhook_endpoint_id": self._ids("/v1/webhook_endpoints?limit=50"),
            "fine_tuning_job_id": self._ids("/v1/fine_tuning/jobs?limit=50"),
            "file_id": self._ids("/v1/files?limit=50"),
            "model": self._ids("/v1/models"),
        }

    def _ids(self, path: str) -> list[str]:
        """The ids of a list of OpenAI's surface."""
        return [one["id"] for one in self._server.get(path).json()["data"]]

    def train(self, behaviour: str) -> str:
        """How a new job ends that trains on what is there."""
        answer = self._server.post("/api/start_training", training(self._model, behaviour, queue=True))
        answer.raise_for_status()
        return str(self._server.wait_for(answer.json()["job_id"])["status"])

    def lead(self, case: Case) -> None:
        """Send a request to something that is there, most of the time; only what is right in it is changed."""
        meta = case.meta
        if meta is None:
            return
        if not meta.is_negative_at(ParameterLocation.PATH):
            for name in case.path_parameters or {}:
                if self._known.get(name) and self._chance.random() < _LED:
                    case.path_parameters[name] = quote(str(self._chance.choice(self._known[name])), safe="")
        if isinstance(case.body, dict) and not meta.is_negative_at(ParameterLocation.BODY):
            self._name_what_is_there(case.path, case.body)

    def _name_what_is_there(self, path: str, body: dict[str, Any]) -> None:
        if path == "/api/start_training" and self._chance.random() < _LED:
            self._leave_out_most(body)
        if "file" in body and self._chance.random() < _LED:
            self._leave_out_most(body)
            body["file"] = self._chance.choice(list(_UPLOADS.values())).decode()
        for name in _TOKENS:
            if isinstance(body.get(name), int):
                body[name] = min(body[name], 16)
        if path.startswith("/v1/"):
            self._name_what_openai_calls_so(path, body)
        if "dataset" in body and self._chance.random() < _LED:
            body["dataset"] = self._chance.choice(self._known["filename"] or ["data.jsonl"])
            body["columns"] = body["encoding"] = None
        if "model_name" in body and self._chance.random() < _LED:
            body["model_name"] = str(self._model)
        if path == "/api/start_training" and self._crowded:
            body["queue"] = False
        if "model_id" in body and self._known["model_id"] and self._chance.random() < 0.5:
            body["model_id"] = self._chance.choice(self._known["model_id"])
        if body.get("output_name") is not None and self._chance.random() < 0.5:
            body["output_name"] = self._chance.choice(_BEHAVIOURS)

    def _name_what_openai_calls_so(self, path: str, body: dict[str, Any]) -> None:
        if self._chance.random() < _LED:
            self._leave_out_most(body)
        if "model" in body and self._chance.random() < _LED:
            names = [str(self._model)] if path == "/v1/fine_tuning/jobs" else self._known["model"]
            body["model"] = self._chance.choice(names)
        for name in ("training_file", "validation_file"):
            if body.get(name) is not None and self._known["file_id"] and self._chance.random() < _LED:
                body[name] = self._chance.choice(self._known["file_id"])
        if path == "/v1/fine_tuning/jobs" and body.get("suffix") is not None and self._chance.random() < _LED:
            body["suffix"] = self._chance.choice(_BEHAVIOURS)
        if "url" in body and self._chance.random() < _LED:
            body["url"] = "http://127.0.0.1:9/hook"  # where nobody listens

    def _leave_out_most(self, body: dict[str, Any]) -> None:
        """Of many fields some hardly ever go together."""
        for name in [name for name in body if name not in _NEEDED and self._chance.random() < 0.9]:
            del body[name]
