"""Models that were made to do harm: none of their code runs, each is refused by name, others are served meanwhile."""

import contextlib
import json
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests
from support.attempt_files import write_model
from support.running_server import RECORDS, RunningServer, forked_real_server, real_server
from support.tiny_model import build_tiny_model

ENDLESS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
# Compared by C, which no signal interrupts: 2 to the power of 60 comparisons.
UNSTOPPABLE = (
    "{% set n = namespace(x=[0], y=[0]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}"
    "{% endfor %}{{ n.x == n.y }}"
)
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
CODE = "from pathlib import Path\nPath({canary!r}).touch()\nclass Model: pass\nclass Config: pass\n"


class Canary:
    """What is unpickled leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.place}",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[RunningServer]:
    server = forked_real_server(folder, MODELFORGE_PLAYGROUND_DEADLINE_SECONDS="2")
    server.upload(RECORDS).raise_for_status()
    yield server
    began = time.monotonic()
    server.end()
    assert server.process.returncode == 0
    assert time.monotonic() - began < 15


def preflight(server: RunningServer, model: Path, **parameters: object) -> requests.Response:
    body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", "output_name": "x"}
    return server.post("/api/preflight", {**body, **parameters})


def everywhere(server: RunningServer, model: Path) -> dict[str, requests.Response]:
    """What each way to have a model read answers."""
    body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", "output_name": "x"}
    query = urlencode({"model_name": str(model)})
    return {
        "start": server.post("/api/start_training", body),
        "preview": server.get(f"/api/datasets/data.jsonl/preview?{query}"),
        "statistics": server.get(f"/api/datasets/data.jsonl/statistics?{query}"),
        "playground": server.post("/api/playground/generate", {"prompt": "Hi", "base_model": str(model)}),
    }


def said(answer: requests.Response) -> str:
    return json.dumps(answer.json(), ensure_ascii=False)


def a_pickle(model: Path, canary: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))


def a_pickled_adapter(model: Path, canary: Path) -> None:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "."}')
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Canary(canary)))


def a_pickle_that_an_index_names(model: Path, canary: Path) -> None:
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / "parts").mkdir()
    (model / "parts" / "weights.bin").write_bytes(pickle.dumps(Canary(canary)))
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "parts/weights.bin"}}')


def a_pickle_called_safetensors(model: Path, canary: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))


def code_of_its_own(model: Path, canary: Path) -> None:
    (model / "evil.py").write_text(CODE.format(canary=str(canary)))
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config = json.loads((model / "config.json").read_text())
    text = json.dumps({**config, "auto_map": names})
    (model / "config.json").write_text(f'{text[:-1]}, "auto_map": null}}')


def a_fifo(model: Path, _canary: Path) -> None:
    os.mkfifo(model / "generation_config.json")


def a_template_from_elsewhere(model: Path, _canary: Path) -> None:
    (model.parent / "secret").write_text("a secret")
    (model / "chat_template.jinja").symlink_to("../secret")


def zeros_without_end(model: Path, _canary: Path) -> None:
    (model / "tokenizer_config.json").symlink_to("/dev/zero")


def a_config_of_gigabytes(model: Path, _canary: Path) -> None:
    with (model / "config.json").open("wb") as file:
        file.truncate(1_500_000_000)


def a_config_of_lists(model: Path, _canary: Path) -> None:
    lists = b"[" + b"[]," * 1_300_000 + b"[]]"
    (model / "config.json").write_bytes(b'{"model_type": "llama", "more": ' + lists + b"}")


def configs_without_number(model: Path, _canary: Path) -> None:
    for number in range(200):
        os.link(model / "config.json", model / f"a{number}_config.json")


def a_header_that_lies(model: Path, _canary: Path) -> None:
    with (model / "model.safetensors").open("wb") as file:
        file.write((90_000_000).to_bytes(8, "little"))
        file.truncate(100_000_000)


def tensors_without_number(model: Path, _canary: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' + b',"a":1' * 2_600_000 + b"}"
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


REFUSED_AT_ONCE = {
    a_pickle: "pytorch_model.bin",
    a_pickled_adapter: "adapter_model.bin",
    code_of_its_own: "config.json has auto_map",
    a_fifo: "generation_config.json: it is a FIFO",
    a_template_from_elsewhere: "chat_template.jinja: it is a link that leaves",
    zeros_without_end: "tokenizer_config.json: it is a link that leaves",
    a_config_of_gigabytes: "config.json: it has 1500000000 bytes",
    a_config_of_lists: "config.json: it names more than 200000",
    configs_without_number: "200 files beside the usual ones end in config.json",
}
REFUSED_BY_PREFLIGHT = {
    a_pickle_that_an_index_names: "weights.bin",
    a_pickle_called_safetensors: "model.safetensors",
    a_header_that_lies: "its header has 90000000 bytes, and may have 16777216",
    tensors_without_number: "model.safetensors: it names more than",
}
Harm = Callable[[Path, Path], None]


@pytest.mark.parametrize(("harm", "says"), REFUSED_AT_ONCE.items(), ids=[harm.__name__ for harm in REFUSED_AT_ONCE])
def test_a_model_that_would_do_harm_is_refused_wherever_it_is_named(
    served: RunningServer, tmp_path_factory: pytest.TempPathFactory, folder: Path, harm: Harm, says: str
) -> None:
    model = write_model(folder / harm.__name__, LLAMA)
    canary = tmp_path_factory.mktemp("canary") / harm.__name__
    harm(model, canary)
    began = time.monotonic()
    answers = everywhere(served, model) | {"preflight": preflight(served, model)}
    for way, answer in answers.items():
        assert answer.status_code == (200 if way == "preflight" else 400), (way, answer.text)
        assert says in said(answer), (way, answer.text)
    preferences = {"strategy": "rlhf", "reward_model": str(model)}
    rewarded = preflight(served, write_model(folder / f"{harm.__name__}-base", LLAMA), **preferences)
    assert says in said(rewarded), rewarded.text
    assert time.monotonic() - began < 20
    assert not canary.exists()


@pytest.mark.parametrize(
    ("harm", "says"), REFUSED_BY_PREFLIGHT.items(), ids=[harm.__name__ for harm in REFUSED_BY_PREFLIGHT]
)
def test_weights_that_lie_are_refused_and_take_no_memory(
    served: RunningServer, tmp_path_factory: pytest.TempPathFactory, folder: Path, harm: Harm, says: str
) -> None:
    model = write_model(folder / harm.__name__, LLAMA)
    canary = tmp_path_factory.mktemp("canary") / harm.__name__
    harm(model, canary)
    answer = preflight(served, model)
    assert says in said(answer), answer.text
    assert not answer.json()["ok"]
    assert not canary.exists()
    assert memory_peak(served) < 400


def memory_peak(server: RunningServer) -> int:
    """The most that the server itself had at once, in MiB."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def test_many_fifos_hold_up_nobody(served: RunningServer, folder: Path) -> None:
    model = write_model(folder / "fifos", LLAMA)
    for name in ("generation_config.json", "chat_template.jinja", "vocab.txt"):
        os.mkfifo(model / name)
    with ThreadPoolExecutor(16) as clients:
        asked = [clients.submit(preflight, served, model) for _ in range(16)]
        began = time.monotonic()
        assert served.get("/api/jobs").status_code == 200
        assert served.upload(RECORDS, "more.jsonl").status_code == 200
        assert time.monotonic() - began < 10
        assert all("FIFO" in said(one.result()) for one in asked)


@pytest.mark.slow
def test_a_template_that_takes_too_much_ends_no_later_answer(served: RunningServer, folder: Path) -> None:
    good = build_tiny_model(folder / "good")
    for name, template, status, says in (
        ("endless", ENDLESS, 400, "more than 2 s"),
        ("unstoppable", UNSTOPPABLE, 503, "may never end"),
    ):
        model = build_tiny_model(folder / name, chat_template=template)
        refused = served.post("/api/playground/generate", {"prompt": "Hi", "base_model": str(model)})
        assert refused.status_code == status, refused.text
        assert says in said(refused)
    answer = served.post("/api/playground/generate", {"prompt": "Hi", "base_model": str(good), "max_new_tokens": 2})
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
def test_nobody_answers_a_client_that_has_left(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "left", chat_template=ENDLESS)
    server = real_server(tmp_path, MODELFORGE_PLAYGROUND_DEADLINE_SECONDS="2")  # its workers are its children
    try:
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps({"prompt": "Hi", "base_model": str(model)}).encode()
        head = f"POST /api/playground/generate HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.5)
            while not (asked := workers(server)):
                time.sleep(0.05)
        began = time.monotonic()
        while asked[0] in workers(server):
            time.sleep(0.05)
        assert time.monotonic() - began < 3
    finally:
        server.end()


def workers(server: RunningServer) -> list[str]:
    """The server's children that answer prompts."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    found = []
    for pid in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if b"trainer_entry.infer" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
