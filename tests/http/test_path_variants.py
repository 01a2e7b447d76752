"""Thousands of spellings of paths, on every route that takes one: nothing outside the roots is read or changed."""

import asyncio
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from support.attempt_files import model_in, training, until_step
from support.running_server import RECORDS, RunningServer, scripted_server
from yarl import URL

pytestmark = pytest.mark.slow

CANARY = "the-canary-that-nobody-may-see"
AT_ONCE = 24
UP = (
    *("..", "%2e%2e", "%2e.", ".%2e", "%252e%252e", "..%00", "%2e%2e%2e", "...", "..;", "..%20", "..%09", "\\.\\."),
    *("%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "\u2024\u2024", "\uff0e\uff0e", "\u2025", ". .", ".\u200b.", "..%c2%85"),
)
SLASH = ("/", "//", "/./", "%2f", "%2F", "%252f", "%5c", "\\", "%c0%af", "\u2215", "\u2044", "\uff0f", "%00/")
ENDS = ("", "/", "/.", "%00", "%00.jsonl", ".", "..", " ", "%20", "\t", "\r\n", "?", "#", ";x", "::$DATA", "/..", "~")


class Place(NamedTuple):
    """Folders of a test: roots are `top/a` and `top/a/b`, and `top/outside` is in none."""

    top: Path
    outside: Path
    server: RunningServer


def tree(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        times = path.lstat()
        found[str(path)] = f"{hashlib.sha256(content).hexdigest()} {times.st_mode} {times.st_ino} {times.st_mtime_ns}"
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    top = tmp_path_factory.mktemp("top")
    outside, inside = top / "outside", top / "a"
    outside.mkdir()
    (outside / "secret.jsonl").write_text(json.dumps({"input": CANARY, "output": CANARY}) + "\n")
    model = model_in(outside)
    (model / "config.json").write_text((model / "config.json").read_text()[:-1] + f', "{CANARY}": "{CANARY}"}}')
    (model / "chat_template.jinja").write_text(CANARY)
    (inside / "b").mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    (inside / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (inside / "loop").symlink_to(inside / "loop")
    server = scripted_server(inside / "b" / "data")
    server.upload(RECORDS).raise_for_status()
    job = server.post("/api/start_training", training(model_in(inside), "completes")).json()
    assert server.wait_for(job["job_id"])["model_id"] == 1
    yield Place(top, outside, server)
    server.end()


def spellings(place: Place) -> list[str]:
    """Ways to write a path to what is outside, or to what is no path at all."""
    root = place.top / "a"
    names = ("secret.jsonl", "base", "base/config.json", "new")
    written: list[str] = []
    for number, (up, slash) in enumerate(itertools.product(UP, SLASH)):
        climb, name = slash.join([up] * 2), names[number % 2]
        begin = f"{root}{slash}b{slash}" if number % 3 else ""
        written.append(f"{begin}{climb}{slash}outside{slash}{name}")
    for name in names:
        absolute = str(place.outside / name)
        written += [absolute + end for end in ENDS]
        written += [f"{root}/link/{name}{end}" for end in ENDS]
        written += [
            absolute.upper(),
            absolute.replace("/", "//"),
            f"/{absolute}",
            f"file://{absolute}",
            f"~/../..{absolute}",
        ]
        written += [f"/proc/self/root{absolute}", f"/proc/self/cwd/../../..{absolute}", f"/dev/fd/../../..{absolute}"]
        written += ["".join(f"%{ord(letter):02x}" for letter in absolute), absolute.replace("/", "%2f")]
    written += [f"{root}/link.jsonl{end}" for end in ENDS]
    written += [f"{root}/loop", "~root/secret", "~nobody", "~", "/", ".", "..", "", "/etc/passwd", "/proc/self/environ"]
    written += [
        "a" * 300,
        "/" + "a" * 300,
        "a/" * 2000,
        "\0",
        "a\0b",
        "\u202e",
        "con",
        "nul",
        "-rf",
        "*",
        "{a,b}",
        "$(id)",
        "`id`",
    ]
    return list(dict.fromkeys(written))


def in_url(text: str) -> str:
    """A text as it may stand in a request line: as it is where that is possible, for it is written by hand."""
    return "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in " ?#\\" else encoded(letter)
        for letter in text
    )


def encoded(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())


class Ask(NamedTuple):
    """A request. `path`: as it goes out, to the byte."""

    method: str
    path: str
    body: dict[str, object] | None = None


def asks(text: str) -> Iterator[Ask]:
    """Every request in which a path, or a name that might be taken for one, can stand."""
    name, every = in_url(text), in_url(text).replace("/", "%2F")
    yield Ask("GET", f"/api/datasets/{name}/download")
    yield Ask("GET", f"/api/datasets/{every}/download")
    yield Ask("DELETE", f"/api/datasets/{every}")
    yield Ask("DELETE", f"/api/models/{name}")
    yield Ask("GET", f"/api/datasets/{every}/preview")
    yield Ask("POST", f"/api/jobs/{every}/checkpoint")
    yield Ask("GET", f"/api/jobs/{every}/logs")
    body = {"task": "text-generation", "dataset": "data.jsonl", "model_name": "smollm2-135m-instruct"}
    yield Ask("POST", "/api/preflight", {**body, "dataset": text})
    yield Ask("POST", "/api/preflight", {**body, "model_name": text})
    yield Ask("POST", "/api/models/1/export", {"path": text})
    yield Ask("POST", "/api/playground/generate", {"prompt": "x", "base_model": text})


async def answers(server: RunningServer, wanted: list[Ask]) -> list[tuple[Ask, int, str]]:
    """What the server says to each, over connections that stay open."""
    got: list[tuple[Ask, int, str]] = []
    waiting = iter(wanted)
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            for ask in waiting:
                url = URL(server.url + ask.path, encoded=True)
                async with session.request(ask.method, url, json=ask.body, allow_redirects=False) as answer:
                    got.append((ask, answer.status, await answer.text(errors="replace")))

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return got


async def test_five_thousand_spellings_reach_nothing_outside_the_roots(place: Place) -> None:
    server = place.server
    running = server.post("/api/start_training", training(place.top / "a" / "base", "waits", max_steps=100_000)).json()
    until_step(server, running["job_id"], 1)  # what is admitted waits, and nothing is started by it
    before, listed = tree(place.outside), names_in(place.top)
    kept = {name: tree(place.top / "a" / "b" / "data" / name) for name in ("datasets", "models")}
    wanted = [ask for text in spellings(place) for ask in asks(text)]
    assert len(wanted) >= 5000
    got = await answers(server, wanted)
    server.post("/api/stop_training").raise_for_status()
    assert len(got) == len(wanted)
    for ask, status, body in got:
        assert CANARY not in body, ask
        assert "root:x:0" not in body, ask
        assert status < 500 or (status == 500 and "could not answer" in body), (ask, status, body)
        if ask.method == "DELETE":
            assert status in {400, 404, 405}, (ask, status, body)
    assert not [ask for ask, status, _ in got if status == 200 and ask.path.startswith("/api/datasets/")]
    assert Counter(status for ask, status, _ in got if ask.path.endswith("/export"))[202] == 0
    for ask, status, body in got:
        if ask.path == "/api/preflight" and ask.body is not None and ask.body["dataset"] != "data.jsonl":
            assert status == 400 or not json.loads(body)["ok"], (ask, body)
    assert tree(place.outside) == before
    assert names_in(place.top) == listed
    assert {name: tree(place.top / "a" / "b" / "data" / name) for name in kept} == kept


def test_the_name_of_an_upload_is_a_label_and_never_a_place(place: Place) -> None:
    before, listed = tree(place.outside), names_in(place.top)
    texts = [text for text in spellings(place) if text.isprintable() and '"' not in text]
    for number, text in enumerate(texts[:: max(1, len(texts) // 16)]):
        answer = place.server.upload(RECORDS + b'{"input": "%d", "output": "x"}\n' % number, text)
        assert answer.status_code in {200, 400}, (text, answer.text)
        if answer.status_code == 200:
            name = answer.json()["filename"]
            assert "/" not in name
            assert "\\" not in name
            assert name not in {".", ".."}
    stored = names_in(place.top / "a" / "b" / "data" / "datasets")
    assert all(len(name.removesuffix(".jsonl")) == 64 for name in stored)
    assert tree(place.outside) == before
    assert names_in(place.top) == listed


def test_what_is_admitted_of_odd_names_is_exported_to_where_it_says_inside_a_root(place: Place) -> None:
    before, listed = tree(place.outside), names_in(place.top)
    for name in ("...", "..%2fout", "a\\..\\b", "~", "out. ", "-rf", "$(id)", "b/../c"):
        asked = place.top / "a" / name
        answer = place.server.post("/api/models/1/export", {"path": str(place.top / "a") + f"/{name}"})
        assert answer.status_code == 202, answer.text
        done = place.server.wait_for(answer.json()["job_id"])
        assert done["status"] == "completed", done["error"]
        assert (asked.resolve() / "adapter_model.safetensors").is_file()
    assert tree(place.outside) == before
    assert names_in(place.top) == listed
