"""The files of the page: whose they are, what they weigh, how they are served, and that none is missing."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.running_server import RunningServer, scripted_server

from modelforge.http.page import page_files

FOLDER = Path(__file__).parents[2] / "modelforge" / "web" / "page"
IMPORT = re.compile(r'^(?:import|export) [^;"]*?(?:from )?"(\./[^"]+)";|import\("(\./[^"]+)"\)', re.MULTILINE)
ASKS = {"MODELFORGE_REQUIRE_TOKEN": "true"}
SCRIPTS = sorted(path for path in page_files() if path.endswith((".js", ".mjs")))
OWN_SCRIPTS = [path for path in SCRIPTS if not path.startswith("vendor/")]
MADE_OF_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|javascript:"
    r'| style="| on\w+="',
    re.IGNORECASE,
)
KB = 1000
PACKAGED = {
    "preact.mjs": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",  # preact 11.2.0 preact.mjs
    "hooks.mjs": "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",  # preact 11.2.0 hooks.mjs
    "htm.mjs": "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",  # htm 3.1.1 htm.mjs
    "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",  # uplot 1.6.32 uPlot.iife.min.js
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",  # uplot 1.6.32 uPlot.min.css
}
"""SHA-256 of each file as its npm package has it in `dist`."""
LICENCES = {"preact": ("preact.mjs", "hooks.mjs"), "htm": ("htm.mjs",), "uplot": ("uplot.js", "uplot.css")}


def text(path: str) -> str:
    return page_files()[path].content.decode()


def imported_by(path: str) -> set[str]:
    folder = "vendor/" if path.startswith("vendor/") else ""
    return {f"{folder}{(one or other).removeprefix('./')}" for one, other in IMPORT.findall(text(path))}


@pytest.mark.parametrize("name", PACKAGED)
def test_a_library_is_what_its_package_has(name: str) -> None:
    content = page_files()[f"vendor/{name}"].content
    if name == "hooks.mjs":  # a browser finds no package by its name
        assert content.count(b'from"./preact.mjs"') == 1
        content = content.replace(b'from"./preact.mjs"', b'from"preact"')
    assert hashlib.sha256(content).hexdigest() == PACKAGED[name]


def test_every_library_has_its_licence_beside_it_and_nothing_else_is_there() -> None:
    licences = {f"LICENSE-{name}" for name in LICENCES}
    assert {path.name for path in (FOLDER / "vendor").iterdir()} == licences | {*PACKAGED}
    assert {file for files in LICENCES.values() for file in files} == {*PACKAGED}
    for name in licences:
        assert re.search("MIT License|Apache License", (FOLDER / "vendor" / name).read_text(), re.IGNORECASE)


def test_what_is_installed_is_what_the_repository_has() -> None:
    here = {str(path.relative_to(FOLDER)): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    served = {path: file.content for path, file in page_files().items() if path != "three_lines.jsonl"}
    assert served == {path: content for path, content in here.items() if not path.startswith("vendor/LICENSE")}


def test_all_scripts_together_are_small() -> None:
    assert sum(len(page_files()[path].content) for path in SCRIPTS) < 400 * KB
    assert sum(len(gzip.compress(page_files()[path].content)) for path in SCRIPTS) < 150 * KB


def test_every_module_is_there_and_none_is_for_nothing() -> None:
    reached: set[str] = set()
    waiting = {path.removeprefix("/page/") for path in re.findall(r'src="([^"]+\.js)"', text("index.html"))}
    while waiting:
        path = waiting.pop()
        assert path in page_files(), path
        reached.add(path)
        waiting |= imported_by(path) - reached
    assert reached == {*SCRIPTS}


def test_every_module_is_asked_for_at_once_and_not_one_after_another() -> None:
    preloaded = re.findall(r'<link rel="modulepreload" href="/page/([^"]+)">', text("index.html"))
    by_tag = {path.removeprefix("/page/") for path in re.findall(r'src="([^"]+\.js)"', text("index.html"))}
    assert preloaded == sorted(set(SCRIPTS) - by_tag, key=lambda path: (path.startswith("vendor/"), path))


@pytest.mark.parametrize("path", OWN_SCRIPTS)
def test_no_name_is_imported_that_is_not_there_or_not_used(path: str) -> None:
    script = text(path)
    for names, file in re.findall(r'^import {([^}]+)} from "\./([^"]+)";', script, re.MULTILINE):
        exported = text(file)
        for name in re.findall(r"\w+", names):
            assert len(re.findall(rf"\b{name}\b", script)) > 1, f"{path} does not use {name}"
            if not file.startswith("vendor/"):
                defined = rf"export (?:async )?(?:const|class|function\*?) {name}\b|export {{[^}}]*\b{name}\b[^}}]*}}"
                assert re.search(defined, exported), f"{file} has no {name}"


def test_what_is_exported_is_imported_elsewhere() -> None:
    for path in OWN_SCRIPTS:
        others = "".join(text(other) for other in OWN_SCRIPTS if other != path)
        for name in re.findall(r"^export (?:async )?(?:const|class|function\*?) (\w+)", text(path), re.MULTILINE):
            assert re.search(rf"\b{name}\b", others), f"{path} exports {name} for nobody"


@pytest.mark.parametrize("path", [*OWN_SCRIPTS, "index.html"])
def test_nothing_turns_a_text_into_markup_or_code(path: str) -> None:
    assert not MADE_OF_TEXT.search(text(path))
    assert not re.search(r"https?://(?!www\.w3\.org/|127\.0\.0\.1|localhost)", text(path))


def test_a_module_is_short_enough_to_be_read() -> None:
    assert {path for path in OWN_SCRIPTS if len(text(path).splitlines()) > 300} == set()


@pytest.mark.parametrize(("path", "media"), [("/", "text/html"), ("/page/app.js", "text/javascript")])
def test_a_file_comes_once_and_packed(module_server: RunningServer, path: str, media: str) -> None:
    plain = module_server.get(path, headers={"Accept-Encoding": "identity"})
    packed = module_server.get(path, headers={"Accept-Encoding": "gzip"})
    assert plain.headers["Content-Type"] == f"{media}; charset=utf-8"
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert (
        packed.content == plain.content == page_files()[path.removeprefix("/page/").strip("/") or "index.html"].content
    )
    assert packed.headers["ETag"] != plain.headers["ETag"]
    for answer in (plain, packed):
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Cache-Control"] == "private, no-cache"
        packing = answer.headers.get("Content-Encoding", "identity")
        again = module_server.get(path, headers={"Accept-Encoding": packing, "If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["ETag"] == answer.headers["ETag"]


def test_the_policy_lets_in_what_comes_from_here_and_nothing_inline(module_server: RunningServer) -> None:
    for path in ("/", "/page/app.js", "/page/vendor/preact.mjs", "/page/style.css"):
        policy = module_server.get(path).headers["Content-Security-Policy"]
        parts = dict(part.split(" ", 1) for part in policy.split("; "))
        assert parts["default-src"] == "'none'"
        assert {parts[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
        assert parts["frame-ancestors"] == parts["base-uri"] == parts["form-action"] == "'none'"


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/vendor/LICENSE-htm", "/page/..%2Flogin.html", "/page/%2Fetc%2Fpasswd"]
)
def test_what_is_no_file_of_the_page_is_not_found(module_server: RunningServer, path: str) -> None:
    answer = module_server.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) >= {"error", "detail", "status_code"}


@pytest.fixture(scope="module")
def asking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One that wants a token."""
    server = scripted_server(tmp_path_factory.mktemp("asks") / "data", **ASKS)
    yield server
    server.end()


def test_the_page_is_served_to_who_has_no_token_and_the_api_is_not(asking_server: RunningServer) -> None:
    for path in ("", *page_files()):
        found = requests.get(f"{asking_server.url}/{f'page/{path}' if path else ''}", timeout=60)
        assert found.status_code == 200, path
    for path in ("/api/jobs", "/api/datasets", "/api/training_status"):
        assert requests.get(asking_server.url + path, timeout=60).status_code == 401, path
