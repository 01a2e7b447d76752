"""Datasets by a hub's id: a real `datasets` reads them from a stand-in of the hub, and a job trains on what came."""

import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet
from support.attempt_files import model_in
from support.fake_hub import TOKEN
from support.running_server import RunningServer, environment, scripted_server
from test_uploads import files_of

from modelforge.datasets.hub import HubDataset, parse_name

pytestmark = pytest.mark.slow

FIRST, SECOND = "a1" * 20, "b2" * 20
MOST_BYTES = 5000
ROWS = [{"input": f"question {n}", "output": f"answer {n}"} for n in range(20)]
LINES = b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in ROWS)


class Hub:
    """A stand-in of the hub beside a real server, whose trainers are scripted."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "served" / "data"
        self._datasets = folder / "hub" / "datasets"
        self._datasets.mkdir(parents=True)
        self.model = model_in(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.fake_hub", str(folder / "hub")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._home = str(folder / "hf")
        self.server = self.serve()

    def serve(self, **variables: str) -> RunningServer:
        here = {"HF_ENDPOINT": self.url, "HF_HOME": self._home, "HF_TOKEN": "", "HF_HUB_OFFLINE": "0", **variables}
        here["MODELFORGE_MAX_UPLOAD_BYTES"] = str(MOST_BYTES)
        # What the libraries warn of is not what is tested here.
        return scripted_server(self.data_dir, PYTHONWARNINGS="default", **here)

    def put(self, name: str, commit: str, **files: bytes) -> None:
        """Commit files, by their names with `__` for the dot, to `main`."""
        folder = self._datasets / name / commit
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file.replace("__", ".")).write_bytes(content)
        (self._datasets / f"{name}.json").write_text(json.dumps({"main": commit}))

    def body(self, dataset: str, **fields: object) -> dict[str, object]:
        return {"task": "text-generation", "model_name": str(self.model), "dataset": dataset, **fields}

    def refused(self, dataset: str, status: int = 400, **fields: object) -> dict[str, Any]:
        """The answer to a start that is refused, and leaves nothing."""
        before = files_of(self.data_dir)
        answer = self.server.post("/api/start_training", self.body(dataset, **fields))
        assert answer.status_code == status, answer.text
        self.left_nothing(before)
        problem: dict[str, Any] = answer.json()
        return problem

    def left_nothing(self, before: list[str]) -> None:
        assert files_of(self.data_dir) == before
        assert list((self.data_dir / "tmp").iterdir()) == []
        assert not Path(self._home).exists(), "the libraries' caches are left alone"

    def train(self, dataset: str, **fields: object) -> dict[str, Any]:
        """A job that was started, and stopped once it trained."""
        answer = self.server.post(
            "/api/start_training", self.body(dataset, **{"output_name": "waits", "max_steps": 100_000, **fields})
        )
        assert answer.status_code == 200, answer.text
        return self.stopped(answer.json()["job_id"])

    def stopped(self, job_id: str) -> dict[str, Any]:
        self.server.wait_for(job_id, "training")
        self.server.post("/api/stop_training").raise_for_status()
        found: dict[str, Any] = self.server.get(f"/api/jobs/{job_id}").json()
        return found

    def asked_for(self, file: str) -> bool:
        """Whether the hub was asked for the content of a file."""
        lines = (self._datasets.parent / "requests.jsonl").read_text().splitlines()
        return any(method == "GET" and path.endswith(f"/{file}") for method, path in map(json.loads, lines))

    def end(self) -> None:
        self.server.end()
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("hub"))
    yield hub
    hub.end()


@pytest.fixture(scope="module")
def put(hub: Hub) -> Callable[..., str]:
    """Puts a dataset on the hub under a name that no other test has; gives its name."""
    names: list[str] = []

    def put_dataset(commit: str = FIRST, owner: str = "org", **files: bytes) -> str:
        names.append(f"{owner}/set-{len(names)}")
        hub.put(names[-1], commit, **files)
        return names[-1]

    return put_dataset


Put = Callable[..., str]


def test_a_job_keeps_the_rows_of_the_commit_that_it_was_started_on(hub: Hub, put: Put) -> None:
    name = put(train__jsonl=LINES, test__jsonl=LINES)
    assert hub.server.post("/api/preflight", hub.body(f"hf://{name}")).json()["ok"]
    hub.left_nothing([])
    job = hub.train(f"hf://{name}")
    sha256 = hashlib.sha256(LINES).hexdigest()
    dataset = job["dataset"]
    assert dataset["source"] == f"hf://{name}@{FIRST}?split=train"
    assert (dataset["filename"], dataset["sha256"]) == (f"{name}:train@{FIRST[:7]}", sha256)
    kept = hub.data_dir / "datasets" / f"{sha256}.jsonl"
    assert Path(dataset["path"]) == kept
    assert kept.read_bytes() == LINES

    hub.put(name, SECOND, train__jsonl=b"".join(LINES.splitlines(keepends=True)[:9]))
    again = hub.server.post(f"/api/jobs/{job['job_id']}/rerun")
    assert again.status_code == 202, again.text
    assert hub.stopped(again.json()["job_id"])["dataset"] == dataset
    moved = hub.train(f"hf://{name}")["dataset"]
    assert moved["source"] == f"hf://{name}@{SECOND}?split=train"
    assert moved["sha256"] != sha256
    for pinned in (f"hf://{name}@{FIRST}", dataset["source"]):
        assert hub.train(pinned)["dataset"] == dataset


def test_columns_say_which_are_the_fields_and_images_are_left_out(hub: Hub, put: Put) -> None:
    image = {"bytes": b"\x89PNG\xff", "path": "a.png"}
    table = pa.table({"asks": ["a", "b"], "says": ["c", "d"], "image": [image] * 2, "vector": [[0.5, 1.0]] * 2})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    name = put(train__parquet=sink.getvalue().to_pybytes())
    refused = hub.refused(f"hf://{name}")
    assert refused["field"] == "dataset"
    assert "asks" in refused["detail"]
    columns = {"input": "asks", "output": "says"}
    path = Path(hub.train(f"hf://{name}", columns=columns)["dataset"]["path"])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines == [{"input": "a", "output": "c"}, {"input": "b", "output": "d"}]
    assert hub.refused(f"hf://{name}", columns={"answered": "says"})["field"] == "columns"


def test_rows_that_are_unlike_come_as_they_were_written(hub: Hub, put: Put) -> None:
    more: list[dict[str, object]] = [
        {},
        {"notes": [{"by": "a", "text": "b"}, {"text": "c"}]},
        {"meta": {"calls": [{"f": 1}, {"g": ["h", 2]}], "said": "j"}},
        {"meta": {"calls": [], "said": {"k": "l"}}},
    ]
    rows = [{**row, **others} for row, others in zip(ROWS, more, strict=False)]
    name = put(train__jsonl=b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    path = Path(hub.train(f"hf://{name}")["dataset"]["path"])
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == rows


def test_one_of_several_configs_is_named(hub: Hub, put: Put) -> None:
    card = b"---\nconfigs:\n- {config_name: en, data_files: en.jsonl}\n- {config_name: de, data_files: de.jsonl}\n---\n"
    name = put(README__md=card, en__jsonl=b'{"input": "a", "output": "b"}\n', de__jsonl=LINES)
    assert "['en', 'de']" in hub.refused(f"hf://{name}")["detail"]
    assert "['en', 'de']" in hub.refused(f"hf://{name}/fr")["detail"]
    dataset = hub.train(f"hf://{name}/de")["dataset"]
    assert dataset["source"] == f"hf://{name}/de@{FIRST}?split=train"
    assert dataset["sha256"] == hashlib.sha256(LINES).hexdigest()


def test_a_split_that_is_not_there_is_refused_with_those_that_are(hub: Hub, put: Put) -> None:
    name = put(train__jsonl=LINES, test__jsonl=LINES)
    refused = hub.refused(f"hf://{name}?split=validation")
    assert "'validation'" in refused["detail"]
    assert "'train', 'test'" in refused["detail"]


def test_a_fault_is_told_by_the_number_of_its_row(hub: Hub, put: Put) -> None:
    rows = [dict(row) for row in ROWS]
    del rows[6]["output"]
    name = put(train__jsonl="\n".join(map(json.dumps, rows)).encode())
    refused = hub.refused(f"hf://{name}")
    assert refused["field"] == "dataset"
    (fault,) = refused["validation"]["errors"]
    assert (fault["line"], fault["field"]) == (7, "output")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"picture__png": b"\x89PNG"}, "imagefolder"),
        (
            {"README__md": b"---\nconfigs: [{config_name: all, data_files: /etc/*.json}]\n---\n"},
            "outside its repository",
        ),
        (
            {"README__md": b"---\nconfigs: [{config_name: all, data_files: 'http://a/b.json'}]\n---\n"},
            "http://a/b.json",
        ),
        ({"README__md": b"# Nothing else is here\n"}, "data files"),
        ({"train__jsonl": LINES + b'{"input": "cut'}, "JSON"),
    ],
    ids=["pictures", "local files", "another address", "empty", "cut off"],
)
def test_what_has_no_rows_of_text_of_its_own_is_refused(
    hub: Hub, put: Put, files: dict[str, bytes], words: str
) -> None:
    refused = hub.refused(f"hf://{put(**files)}")
    assert words in refused["detail"]


def test_what_the_hub_does_not_have_or_give(hub: Hub, put: Put) -> None:
    unknown = hub.refused("hf://org/none", 404)["detail"]
    assert unknown.startswith("dataset: org/none: the hub answered 404. Check the spelling")
    assert "'v2'" in hub.refused(f"hf://{put(train__jsonl=LINES)}@v2", 404)["detail"]
    for owner, status in (("gated", "401"), ("closed", "403")):
        given = hub.refused(f"hf://{put(owner=owner, train__jsonl=LINES)}", 404)["detail"]
        assert status in given
        assert "hf auth login" in given


parts = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.]{0,20}[a-z0-9]", fullmatch=True).filter(lambda part: ".." not in part)


@given(parts, parts.map("of-{}".format), st.none() | parts, parts)
def test_the_name_of_a_commit_is_a_name_of_the_same(owner: str, name: str, config: str | None, split: str) -> None:
    asked = HubDataset(repo=f"{owner}/{name}", config=config, revision=FIRST, split=re.sub(r"\W", "_", split))
    assume(owner not in {"datasets", "models", "spaces", "buckets"} and not name.endswith(".git"))
    assert parse_name(asked.at(FIRST)) == asked


@pytest.mark.parametrize(
    "name",
    [
        "hf://name",
        "hf://datasets/org/name",
        "hf://org/name?split=train[:10%]",
        "hf://org/name?split=train&split=test",
        "hf://org/name?revision=main",
        "hf://org/name@",
        "hf://org/na--me",
        "hf://org/../etc",
        "hf://org/name/config/more",
        "hf://",
    ],
)
def test_another_spelling_is_refused_with_the_right_one(hub: Hub, name: str) -> None:
    refused = hub.refused(name)
    assert refused["field"] == "dataset"
    assert "hf://owner/name[/config][@revision][?split=name]" in refused["detail"]


def test_a_preflight_says_the_same_and_leaves_nothing(hub: Hub, put: Put) -> None:
    before = files_of(hub.data_dir)
    for dataset, field in ((f"hf://{put(train__jsonl=LINES)}?split=test", "dataset"), ("hf://org/none", "dataset")):
        answer = hub.server.post("/api/preflight", hub.body(dataset)).json()
        assert [problem["field"] for problem in answer["problems"]] == [field]
    hub.left_nothing(before)


def test_rows_that_are_too_many_leave_nothing(hub: Hub, put: Put) -> None:
    name = put(train__jsonl=LINES * 10)
    assert f"{MOST_BYTES} bytes" in hub.refused(f"hf://{name}")["detail"]


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_client_that_goes_away_ends_the_download(hub: Hub, put: Put) -> None:
    before, pid = files_of(hub.data_dir), hub.server.process.pid
    body = hub.body(f"hf://{put(slow__jsonl=LINES)}")
    client = socket.create_connection(("127.0.0.1", int(hub.server.url.rpartition(":")[2])))
    data = json.dumps(body).encode()
    head = ("POST /api/preflight HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    client.sendall("\r\n".join((*head, f"Content-Length: {len(data)}", "", "")).encode() + data)
    wait_until(lambda: hub.asked_for("slow.jsonl"))
    assert children_of(pid)
    client.close()
    wait_until(lambda: not children_of(pid) and files_of(hub.data_dir) == before)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_gated_dataset_is_fetched_with_the_servers_token(hub: Hub, put: Put) -> None:
    name = put(owner="gated", train__jsonl=LINES)
    hub.server.end()
    hub.server = hub.serve(HF_TOKEN=TOKEN)
    assert hub.train(f"hf://{name}")["dataset"]["source"] == f"hf://{name}@{FIRST}?split=train"


def test_a_hub_that_is_not_asked_or_not_there_is_said_soon(hub: Hub) -> None:
    hub.server.end()
    hub.server = hub.serve(HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in hub.refused("hf://org/name", 404)["detail"]
    hub.server.end()
    hub.server = hub.serve(HF_ENDPOINT="http://127.0.0.1:9")
    assert "by its absolute path" in hub.refused("hf://org/name", 404)["detail"]
