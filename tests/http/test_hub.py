"""Models of a hub: one that is in its cache, one that it has, and a hub that is not there."""

import asyncio
import gzip
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from huggingface_hub import constants
from support.attempt_files import write_model

from modelforge.admission.estimate.remote_model import fetch_remote_model
from modelforge.admission.model import check_model
from modelforge.domain.purposes import Purpose
from modelforge.errors import BadInput, NotFound
from modelforge.hub import cached_snapshot

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500}
Hub = Callable[[dict[str, list[str]]], Awaitable[None]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
async def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], Awaitable[None]]:
    """A stand-in of the hub's API that has some models."""
    servers: list[TestServer] = []

    async def start(models: dict[str, list[str]]) -> None:
        async def model(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            gated = name.startswith("gated/") and request.headers.get("Authorization") != "Bearer hf_mine"
            if name not in models or gated:
                return web.json_response({"error": "Repository not found"}, status=401)
            config = {"architectures": ["BertForMaskedLM"], "model_type": "bert"} if "bert" in name else None
            files = [{"rfilename": file} for file in models[name]]
            return web.json_response({"siblings": files, "config": config, "safetensors": {"total": 1_000_000}})

        async def sizes(_request: web.Request) -> web.Response:
            return web.json_response(SIZES)

        app = web.Application()
        app.router.add_get("/{owner}/{name}/resolve/main/config.json", sizes)
        app.router.add_get("/api/models/{name:.+}", model)
        servers.append(TestServer(app))
        await servers[0].start_server()
        monkeypatch.setattr(constants, "ENDPOINT", str(servers[0].make_url("")).rstrip("/"))

    yield start  # type: ignore[misc]
    for server in servers:
        await server.close()


async def test_a_model_of_the_hub_is_taken(hub: Hub) -> None:
    await hub({"owner/good": ["config.json", "model.safetensors"]})
    assert await check_model("owner/good", ()) == "owner/good"


@pytest.mark.parametrize("place", ["environment", "file"])
async def test_a_gated_model_is_asked_for_with_the_servers_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    await hub({"gated/good": ["config.json", "model.safetensors"]})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(NotFound, match="hf auth login"):
        await check_model("gated/good", ())
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
    else:
        (tmp_path / "token").write_text("hf_mine\n")
    assert await check_model("gated/good", ()) == "gated/good"


async def test_a_model_with_pickles_only_is_refused(hub: Hub) -> None:
    await hub({"owner/old": ["config.json", "pytorch_model.bin"]})
    with pytest.raises(BadInput, match="safetensors"):
        await check_model("owner/old", ())


async def test_a_model_of_the_hub_that_cannot_learn_the_task_is_refused(hub: Hub) -> None:
    await hub({"owner/bert": ["config.json", "model.safetensors"]})
    asks = Purpose("extractive-question-answering", "sft", "huggingface")
    assert await check_model("owner/bert", (), purpose=asks) == "owner/bert"
    with pytest.raises(BadInput, match="BertForMaskedLM"):
        await check_model("owner/bert", (), purpose=Purpose("text-generation", "sft", "huggingface"))


async def test_a_model_that_the_hub_does_not_have_is_not_found(hub: Hub) -> None:
    await hub({})
    with pytest.raises(NotFound, match="owner/none"):
        await check_model("owner/none", ())


async def test_a_hub_that_is_not_there_is_said_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NotFound, match="smollm2-135m-instruct"):
        await asyncio.wait_for(check_model("owner/good", ()), 10)


async def test_a_hub_that_does_not_answer_is_not_waited_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent, socket.socket() as waiting:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        waiting.connect(silent.getsockname())  # takes the one place: no other connection is made
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(NotFound, match="hub cannot be reached"):
            await asyncio.wait_for(check_model("owner/good", ()), 10)


async def test_a_model_in_the_cache_needs_no_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    folder = cache / "models--owner--cached"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"")
    assert await check_model("owner/cached", ()) == "owner/cached"
    (snapshot / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(BadInput, match="auto_map"):
        await check_model("owner/cached", ())


async def test_a_download_that_was_broken_off_is_left_to_the_hub(hub: Hub, cache: Path) -> None:
    folder = cache / "models--owner--broken"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "one.safetensors").write_bytes(b"")
    (snapshot / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    )
    await hub({"owner/broken": ["config.json", "one.safetensors", "two.safetensors"]})
    assert cached_snapshot("owner/broken") is None
    assert await check_model("owner/broken", ()) == "owner/broken"
    (snapshot / "two.safetensors").write_bytes(b"")
    assert cached_snapshot("owner/broken") == snapshot


@pytest.mark.parametrize(
    ("config", "writes"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2Model"]}, True),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, True),
        ({"model_type": "bert", "architectures": ["BertModel"]}, False),
        ({"model_type": "distilbert"}, False),
        ({"model_type": "bert", "is_decoder": True}, True),
    ],
)
async def test_what_only_reads_is_told_from_what_writes(
    tmp_path: Path, config: dict[str, object], *, writes: bool
) -> None:
    model = write_model(tmp_path / "model", config)
    check = check_model(str(model), (tmp_path,), purpose=Purpose("text-generation", "sft", "huggingface"))
    if writes:
        assert await check == str(model)
    else:
        with pytest.raises(BadInput, match="cannot be trained"):
            await check


async def test_a_long_answer_of_the_hub_is_read_to_its_end(hub: Hub) -> None:
    await hub({"owner/large": ["config.json", *(f"model-{n:05}.safetensors" for n in range(50_000))]})
    assert await fetch_remote_model("owner/large") is not None


async def test_what_the_hub_tells_of_a_model_is_reckoned_with(hub: Hub) -> None:
    await hub({"owner/good": ["config.json", "model.safetensors"]})
    told = await fetch_remote_model("owner/good")
    assert told is not None
    assert sum(weight.size for weight in told.weights) == 1_000_000
    assert told.architecture.hidden == 64


async def test_what_the_hub_does_not_tell_is_not_known(hub: Hub) -> None:
    await hub({})
    assert await fetch_remote_model("owner/none") is None


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * (1 << 20))


async def packed(_request: web.Request) -> web.Response:
    bomb = gzip.compress(bytes(1 << 27))
    return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


async def elsewhere(_request: web.Request) -> web.Response:
    raise web.HTTPFound("http://169.254.169.254/latest/meta-data")


async def round_and_round(request: web.Request) -> web.Response:
    raise web.HTTPFound(f"{request.path}x")


async def nested(_request: web.Request) -> web.Response:
    return web.Response(text='{"config": ' + "[" * 1_000_000, content_type="application/json")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (endless, "answered more than 8388608 bytes"),
        (packed, "answered packed"),
        (elsewhere, "another host, http://169"),
        (round_and_round, "from one address to the next"),
        (nested, "cannot be read"),
    ],
)
async def test_a_hub_that_answers_without_end_takes_no_memory(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    says: str,
) -> None:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        monkeypatch.setattr(constants, "ENDPOINT", str(server.make_url("")).rstrip("/"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(NotFound, match=says):
            await check_model("owner/name", ())
        assert await fetch_remote_model("owner/name") is None
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


async def test_a_model_that_was_renamed_is_found(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def model(request: web.Request) -> web.Response:
        if request.match_info["name"] == "old":
            raise web.HTTPTemporaryRedirect("/api/models/new/name")
        return web.json_response({"siblings": [{"rfilename": "config.json"}, {"rfilename": "a.safetensors"}]})

    app = web.Application()
    app.router.add_get("/api/models/{name}", model)
    app.router.add_get("/api/models/new/{name}", model)
    async with TestServer(app) as server:
        monkeypatch.setattr(constants, "ENDPOINT", str(server.make_url("")).rstrip("/"))
        assert await check_model("old", ()) == "old"
