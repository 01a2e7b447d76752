"""The files of a model's folder, in which anything may lie: what either side reads of them, and what is refused."""

import asyncio
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import write_model

from modelforge import model_files
from modelforge.admission.foreign_code import code_in
from modelforge.admission.model import check_model
from modelforge.errors import BadInput, TooMuchWork
from modelforge.machine import reading_threads
from modelforge.machine.reading_threads import read_apart
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.failures import ModelUnavailable

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "t.jinja").write_text("a secret")
    return write_model(tmp_path / "model", LLAMA)


def a_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFSOCK | 0o600)  # not bound: the path of one that is may have 107 bytes


def a_link_to(target: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return harm


def a_long_way_out(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name("hop").symlink_to("..")
    path.symlink_to("hop/secret")


def a_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def gigabytes_of_nothing(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1_500_000_000)


HARMS = [
    a_fifo,
    a_socket,
    a_link_to("../secret"),
    a_link_to("/etc/hostname"),
    a_link_to("/dev/zero"),
    a_long_way_out,
    a_loop,
]
READ = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "vocab.txt",
    "README.md",
]


@pytest.mark.parametrize("file", READ)
@pytest.mark.parametrize("harm", HARMS)
async def test_a_file_that_is_none_of_the_model_is_refused_by_name(
    model: Path, harm: Callable[[Path], None], file: str
) -> None:
    harm(model / file)
    with pytest.raises(BadInput, match=rf"model: ({file}|hop): ") as refused:
        await asyncio.wait_for(check_model(str(model), (model.parent,)), 5)
    assert refused.value.field == "model_name"
    with pytest.raises(ModelUnavailable, match=rf"({file}|hop)"):
        check_folder(str(model))


@pytest.mark.parametrize("file", [name for name in READ if name.endswith(("json", "jinja", "txt"))])
async def test_a_file_that_is_longer_than_its_kind_is_refused_by_name(model: Path, file: str) -> None:
    gigabytes_of_nothing(model / file)
    with pytest.raises(BadInput, match=rf"{file}: it has 1500000000 bytes, and may have"):
        await check_model(str(model), (model.parent,))
    with pytest.raises(ModelUnavailable, match=rf"{file} is not read: it has 1500000000 bytes"):
        check_folder(str(model))


@pytest.mark.parametrize("linked", ["additional_chat_templates", "additional_chat_templates/tools.jinja"])
async def test_further_templates_do_not_come_from_elsewhere(model: Path, linked: str) -> None:
    (model / linked).parent.mkdir(exist_ok=True)
    (model / linked).symlink_to("../others" if "/" not in linked else "../../others/t.jinja")
    with pytest.raises(BadInput, match=f"{linked}: it is a link that leaves the model's folder"):
        await check_model(str(model), (model.parent,))
    with pytest.raises(ModelUnavailable, match="leaves the model's folder"):
        check_folder(str(model))


async def test_links_within_the_folder_are_followed(model: Path) -> None:
    (model / "parts").mkdir()
    (model / "model.safetensors").rename(model / "parts" / "first")
    (model / "model.safetensors").symlink_to(model / "parts" / "first")
    (model / "tokenizer.json").rename(model / "parts" / "second")
    (model / "tokenizer.json").symlink_to("parts/../parts/second")
    assert await check_model(str(model), (model.parent,)) == str(model)
    check_folder(str(model))
    assert model_files.read_file(model, "tokenizer.json") == (model / "parts" / "second").read_bytes()


def in_the_cache(model: Path) -> Path:
    """The model as the hub's cache has it: links to blobs."""
    repository = model.parent / "models--owner--name"
    snapshot = repository / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        file.rename(repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return snapshot


async def test_a_snapshot_of_the_hub_s_cache_is_read_through_its_links(model: Path) -> None:
    snapshot = in_the_cache(model)
    assert await check_model(str(snapshot), (model.parent,)) == str(snapshot)
    check_folder(str(snapshot))
    (snapshot / "generation_config.json").symlink_to("../../../secret")
    with pytest.raises(BadInput, match=r"generation_config\.json: it is a link that leaves"):
        await check_model(str(snapshot), (model.parent,))
    with pytest.raises(ModelUnavailable, match="leaves the model's folder"):
        check_folder(str(snapshot))


@pytest.mark.parametrize(
    "config",
    [
        '{"auto_map": {"AutoModel": "evil.Model"}, "auto_map": null}',
        '{"auto_map": null, "auto_map": {"AutoModel": "evil.Model"}}',
        '{"auto_map": "evil.Model"}',
        '{"auto_map": ["evil.Model", null]}',
        '{"auto\\u005fmap": {"AutoModel": "evil.Model"}}',
        '{"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}',
        '{"a": [{"b": {"auto_map": {"AutoModel": "evil.Model"}}}], "a": []}',
        '{"_attn_implementation": "evil/kernel"}',
        '{"attn_implementation": {"text_config": "evil/kernel@main:run"}}',
    ],
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
async def test_code_of_a_model_s_own_is_seen_wherever_it_is_named(model: Path, config: str, file: str) -> None:
    (model / file).write_text(config)
    with pytest.raises(BadInput, match=rf"code of its own.*{file} has .*(auto_map|attn_implementation)"):
        await check_model(str(model), (model.parent,))


@pytest.mark.parametrize(
    "config", ['{"auto_map": null}', '{"auto_map": {}}', '{"attn_implementation": "sdpa"}', '{"note": "auto_map"}']
)
def test_what_names_no_code_is_none(config: str) -> None:
    assert code_in(config) is None


async def test_a_disk_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_threads, "_SECONDS", 0.2)
    released = threading.Event()
    try:
        hanging = [asyncio.ensure_future(read_apart(released.wait)) for _ in range(20)]
        assert await asyncio.to_thread(lambda: 7) == 7
        for one in hanging:
            with pytest.raises(TooMuchWork, match="do not come"):
                await one
    finally:
        released.set()
    assert await read_apart(len, "four") == 4


def test_a_process_whose_disk_hangs_ends_all_the_same() -> None:
    program = """
import asyncio, threading
from modelforge.machine.reading_threads import read_apart

async def main() -> None:
    hanging = [asyncio.ensure_future(read_apart(threading.Event().wait)) for _ in range(20)]
    await asyncio.sleep(0.1)
    [one.cancel() for one in hanging]

asyncio.run(main())
"""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
    assert time.monotonic() - began < 20


async def test_a_configuration_of_very_many_names_is_refused_and_takes_no_memory(model: Path) -> None:
    (model / "tokenizer_config.json").write_text("{" + ",".join(['"a":1'] * 1_000_000) + "}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput, match=r"tokenizer_config\.json.*more than 200000"):
        await check_model(str(model), (model.parent,))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
