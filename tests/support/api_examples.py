"""The examples of `openapi.json`: `python -m support.api_examples` asks a server everything, and keeps what was said.

The server has scripted trainers and a playground that answers as it is told; all else is as it always is.
"""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from modelforge.http.openapi import EXAMPLES
from modelforge.http.plumbing.route import Route
from modelforge.http.routes import ROUTES
from support.attempt_files import model_in, write_weights
from support.running_server import RunningServer, scripted_server
from support.webhook_receiver import receiver

RECORDS = Path(__file__).parents[2] / "examples" / "three_lines.jsonl"
_SAYS = json.dumps({"say": ["A mountain ", "that opens."]})
_ROUTES = [(route, re.compile(re.sub(r"{\w+}", "[^/]+", route.path))) for route in ROUTES]
_OF_ANY_MACHINE = {"data directory", "log", "models"}
_SECRET = re.compile(r"\b(mf_|whsec_)[\w+/=-]{20,}")


class Exchange(Struct):
    """What was asked of a route, where its body is JSON, and what it answered."""

    route: Route
    body: Any
    answer: Any


class Asking:
    """Asks a server as its owner, and keeps everything that was said."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.exchanges: list[Exchange] = []
        server.shown = server.as_owner()

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        plain = path.partition("?")[0]
        route = next(route for route, like in _ROUTES if route.method == method and like.fullmatch(plain))
        match method:
            case "GET":
                answer = self.server.get(path)
            case "POST":
                answer = self.server.post(path, body)
            case _:
                answer = self.server.delete(path)
        assert answer.status_code == route.status, answer.text
        said = answer.json()
        self.exchanges.append(Exchange(route, body, said))
        return said

    def upload(self, path: str, content: bytes, filename: str, **fields: str) -> Any:
        (route,) = [route for route in ROUTES if (route.method, route.path) == ("POST", path)]
        files = {"file": (filename, content)}
        answer = self.server.post(path, files=files, data=fields)
        assert answer.status_code == 200, answer.text
        self.exchanges.append(Exchange(route, None, answer.json()))
        return answer.json()


def ask_everything(server: RunningServer, folder: Path) -> list[Exchange]:
    """Ask every route whose answer is JSON, on a server that has nothing yet; `folder`: one that it may read."""
    ask = Asking(server)
    model = str(model_in(folder))
    for path in ("info", "health"):
        ask("GET", f"/api/{path}")
    ask.upload("/api/upload_dataset", RECORDS.read_bytes(), RECORDS.name, task="text-generation")
    training: dict[str, object] = {
        "task": "text-generation",
        "model_name": model,
        "dataset": RECORDS.name,
        "strategy": "qlora",
    }
    training |= {"num_train_epochs": 2, "lora_r": 8, "max_restarts": 1, "metadata": {"who": "me"}}
    _train(ask, training)
    _work(ask, training)
    _look(ask, model, _tokenizer(folder / "smollm"))
    _let_in(ask)
    _as_openai(ask, model)
    _clear(ask)
    return ask.exchanges


def _tokenizer(folder: Path) -> Path:
    """A model of which nothing but its tokenizer is read."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder.mkdir()
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))  # noqa: S106 - no password
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator([RECORDS.read_text()], trainers.WordLevelTrainer(special_tokens=["<unk>", "</s>"]))
    words.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": words.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", {"model.layers.0.mlp.up_proj.weight": (16, 8)})
    return folder


def _train(ask: Asking, training: dict[str, object]) -> None:
    """A job that is stopped, gone on with and repeated, and one that completes."""
    asked = {**training, "output_name": "waits", "max_steps": 100_000}
    ask("POST", "/api/preflight", asked)
    job_id = ask("POST", "/api/start_training", asked)["job_id"]
    ask.server.wait_for(job_id, "training")
    ask("POST", f"/api/jobs/{job_id}/checkpoint")
    while not (ask.server.get(f"/api/jobs/{job_id}/checkpoints").json()["checkpoints"]):
        time.sleep(0.02)
    waits = ask("POST", f"/api/jobs/{job_id}/rerun", {"queue": True})["job_id"]
    ask("POST", f"/api/jobs/{waits}/cancel")
    ask("POST", f"/api/jobs/{job_id}/stop")
    ask.server.wait_for(job_id, "stopped")
    ask("GET", f"/api/jobs/{job_id}/checkpoints")
    ask("POST", f"/api/jobs/{job_id}/resume")
    ask.server.wait_for(job_id, "training")
    ask("POST", "/api/stop_training")
    asked = {**training, "output_name": "completes", "max_steps": 3}
    job_id = ask("POST", "/api/start_training", asked)["job_id"]
    ask.server.wait_for(job_id, "completed")
    ask("GET", f"/api/jobs/{job_id}")
    ask("GET", f"/api/jobs/{job_id}/metrics?limit=1")
    ask("GET", "/api/jobs?status=completed&limit=1")
    ask("GET", "/api/training_status")
    ask("GET", "/api/state")


def _work(ask: Asking, training: dict[str, object]) -> None:
    """What is made of a model: each waits for a job, and is taken out of the queue."""
    job_id = ask("POST", "/api/start_training", {**training, "output_name": "waits", "max_steps": 100_000})["job_id"]
    for what, body in (
        ("merge", {"output_name": "poet-merged", "dtype": "bfloat16"}),
        ("export", {"format": "tar"}),
        ("evaluate", {"dataset": training["dataset"], "max_samples": 50}),
    ):
        waits = ask("POST", f"/api/models/1/{what}", {**body, "queue": True})["job_id"]
        ask("POST", f"/api/jobs/{waits}/cancel")
    ask("POST", f"/api/jobs/{job_id}/stop")
    ask.server.wait_for(job_id, "stopped")
    push = {"repo_id": "me/poet", "private": True}
    refused = ask.server.post("/api/models/1/push", push).json()  # no test reaches a hub
    assert "hub" in refused["error"], refused
    (route,) = [route for route in ROUTES if route.path == "/api/models/{model_id}/push"]
    ask.exchanges.append(Exchange(route, push, None))


def _look(ask: Asking, model: str, tokenizer: Path) -> None:
    """At datasets, models and the log."""
    ask("GET", "/api/datasets")
    ask("GET", f"/api/datasets/{RECORDS.name}")
    ask("GET", f"/api/datasets/{RECORDS.name}/preview?limit=1")
    ask("GET", f"/api/datasets/{RECORDS.name}/statistics?sample=10&model_name={tokenizer}&max_seq_length=64")
    ask("GET", "/api/models")
    ask("GET", "/api/models/1")
    ask("POST", "/api/playground/generate", {"base_model": model, "prompt": _SAYS, "max_new_tokens": 64, "seed": 7})
    ask("GET", "/api/events?type=TrainingStarted&type=AttemptExited&limit=1&after=5")
    ask("GET", "/api/verify")
    ask("GET", "/api/machine")
    ask("POST", "/api/doctor")


def _let_in(ask: Asking) -> None:
    """Tokens, and browsers."""
    ask("POST", "/api/tokens", {"name": "laptop", "scope": "write", "expires_at": "2099-01-31T12:00:00Z"})
    ask("GET", "/api/tokens")
    ask("DELETE", "/api/tokens/laptop")
    ask("GET", "/api/session")
    code = ask("POST", "/api/login_links")["path"].partition("#")[2]
    ask("POST", "/api/session", {"code": code})
    ask("DELETE", "/api/session")


def _as_openai(ask: Asking, model: str) -> None:
    """The same as OpenAI's client asks for it."""
    file = ask.upload("/v1/files", RECORDS.read_bytes(), "poems.jsonl", purpose="fine-tune")["id"]
    ask("GET", f"/v1/files/{file}")
    ask("GET", "/v1/files?limit=1")
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": "auto"}}}
    asked = {"model": model, "training_file": file, "suffix": "completes", "seed": 7, "method": method}
    job_id = ask("POST", "/v1/fine_tuning/jobs", {**asked, "modelforge": {"lora_r": 8}})["id"]
    ask.server.wait_for(job_id.replace("ftjob-", "train_"))
    for path in (f"/{job_id}", "?limit=1", f"/{job_id}/events?limit=1", f"/{job_id}/checkpoints"):
        ask("GET", f"/v1/fine_tuning/jobs{path}")
    asked = {**asked, "suffix": "waits", "method": {**method, "supervised": {"hyperparameters": {"n_epochs": 40}}}}
    job_id = ask("POST", "/v1/fine_tuning/jobs", {**asked, "modelforge": {"max_steps": 100_000}})["id"]
    for what in ("pause", "resume", "cancel"):
        ask("POST", f"/v1/fine_tuning/jobs/{job_id}/{what}")
    ask("GET", "/v1/models")
    name = quote(ask("GET", "/v1/models")["data"][0]["id"], safe="")
    ask("GET", f"/v1/models/{name}")
    ask("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": _SAYS}]})
    ask("POST", "/v1/completions", {"model": model, "prompt": _SAYS, "max_tokens": 16, "temperature": 0})
    ask("POST", "/v1/responses", {"model": model, "input": _SAYS, "max_output_tokens": 64})
    ask("DELETE", f"/v1/models/{name}")
    ask("DELETE", f"/v1/files/{file}")
    ask("GET", "/v1/webhook_event_types")
    with receiver() as told:
        endpoint = {"name": "desk", "url": f"{told.url}/hook", "event_types": ["fine_tuning.job.succeeded"]}
        path = f"/v1/webhook_endpoints/{ask('POST', '/v1/webhook_endpoints', endpoint)['id']}"
        ask("GET", path)
        ask("GET", "/v1/webhook_endpoints")
        ask("POST", path, {"name": "desk 2"})
        ask("POST", f"{path}/test", {"event_type": "fine_tuning.job.succeeded"})
        ask("POST", f"{path}/rotate_secret", {"keep_old_secret_active_for_24_hours": True})
        ask("DELETE", path)


def _clear(ask: Asking) -> None:
    ask("DELETE", "/api/models/1")
    ask("DELETE", f"/api/datasets/{RECORDS.name}")


def by_struct(exchanges: list[Exchange]) -> dict[str, Any]:
    """One example of each Struct, by its name; of several the last, or that of a job that completed.

    Of a machine and of the doctor there is what any machine says.
    """
    found: dict[str, Any] = {}
    for exchange in exchanges:
        for kind, said in _said(exchange):
            found[kind.__name__] = said
    for path in ("/api/jobs/{job_id}", "/v1/fine_tuning/jobs/{fine_tuning_job_id}", "/api/start_training"):
        for exchange in exchanges:
            if exchange.route.path == path and "waits" not in json.dumps(exchange.body):
                found |= {kind.__name__: said for kind, said in _said(exchange)}
    found["MachineDetails"] |= {"swap": None, "gpus": [], "platform": "Linux-6.1.0-x86_64-with-glibc2.36"}
    found["MachineDetails"]["versions"] = {"torch": found["MachineDetails"]["versions"]["torch"]}
    told = [one for one in found["Examination"]["findings"] if one["subject"] in _OF_ANY_MACHINE]
    found["Examination"] = {"findings": told}
    return dict(sorted(found.items()))


def _said(exchange: Exchange) -> Iterator[tuple[type[Struct], Any]]:
    if exchange.route.body is not None and exchange.body:
        yield exchange.route.body, exchange.body
    if exchange.route.answer is not None and exchange.answer is not None:
        yield exchange.route.answer, exchange.answer


def as_stored(examples: dict[str, Any], folder: Path) -> str:
    """As the file has them: an example a line, without a machine's own folders, and without secrets."""
    lines = (f"{json.dumps(name)}: {json.dumps(example, ensure_ascii=False)}" for name, example in examples.items())
    text = ",\n".join(lines).replace(f"{folder}/base", "/home/me/smollm2-135m").replace(str(folder), "/home/me")
    text = text.replace(json.dumps(_SAYS), json.dumps("What is a volcano?"))
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:9000", _SECRET.sub(r"\1…", text))
    text = re.sub(r'("(?:code|path)": ")(/login#)?[\w-]{40,}"', r'\1\2…"', text)
    return f"{{\n{text.replace('completes', 'poet').replace('waits', 'poet')}\n}}\n"


def shape(value: object) -> object:
    """The names in a value, whatever stands under them."""
    match value:
        case dict():
            return {name: shape(inside) for name, inside in value.items()}
        case [first, *_]:
            return [shape(first)]
        case _:
            return None


def main() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        server = scripted_server(folder / "data", "--scripted-answers")
        try:
            exchanges = ask_everything(server, folder)
        finally:
            server.end()
        EXAMPLES.write_text(as_stored(by_struct(exchanges), folder))


if __name__ == "__main__":
    main()
