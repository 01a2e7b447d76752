"""What a training needs of this machine: packages, a GPU, a compiler."""

import importlib.metadata
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

from modelforge.errors import BadInput
from modelforge.machine.devices import visible_gpus
from modelforge.machine.trainer_libraries import check_trainer_libraries
from trainer_entry import wire

_LIGER_BY_LAYER = (1, 16)
"""The release of trl from which on liger's kernels stand in layers alone, and no loss is taken from it."""


def check_installed(
    provider: wire.Provider, parameters: wire.TrainingParameters, cluster_gpus: int | None = None
) -> None:
    """Refuse what needs a package, a GPU or a compiler that is not here.

    `cluster_gpus`: how many a job of the cluster asks for; None where it runs on this machine.

    Raises:
        BadInput: it says how to install it, or how many there are.
        TrainersMissing: no training is possible here.
    """
    check_trainer_libraries()
    if provider == "unsloth" and importlib.util.find_spec("unsloth") is None:
        raise BadInput(
            "unsloth is not installed",
            'Install it beside the server with `make setup-unsloth`, or send "provider": "huggingface".',
            field="provider",
        )
    if parameters.attn_implementation == "flash_attention_2":
        _check_flash_attention(cluster_gpus)
    if parameters.liger:
        _check_liger(cluster_gpus)
    if parameters.use_vllm:
        _check_vllm(cluster_gpus)
    if parameters.torch_compile:
        _check_compiler()
    gpus = len(visible_gpus()) if parameters.num_processes > 1 and cluster_gpus is None else 0
    if 0 < gpus < parameters.num_processes:
        raise BadInput(
            f"num_processes {parameters.num_processes} is more than there are GPUs",
            f'Each process trains on a GPU of its own: send "num_processes": {gpus}, or start the server with more.',
            field="num_processes",
        )
    _check_trackers(parameters)


def _check_trackers(parameters: wire.TrainingParameters) -> None:
    """Refuse to report to a tracker by a package that is not here."""
    missing = [name for name in parameters.trackers if not _is_package(name)]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        them = "it" if len(missing) == 1 else "them"
        raise BadInput(
            f"{' and '.join(missing)} {are} not installed",
            f'Install {them} beside the server (pip install {" ".join(missing)}), or send "report_to": "none".',
            field="report_to",
        )


def _is_package(name: str) -> bool:
    """Whether a package can be imported; a folder of that name in the working directory, as wandb makes it, is none."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None


def _lacks_gpu(cluster_gpus: int | None) -> str:
    """Why a job has no GPU; empty where it has one."""
    if cluster_gpus is not None:
        return "" if cluster_gpus else "The job asks the cluster for none: give cluster.gpus_per_node, or"
    return "" if visible_gpus() else "This machine has none that trainers may use:"


def _check_flash_attention(cluster_gpus: int | None) -> None:
    """Refuse attention by a package that is not here, or runs on no device of this machine."""
    if lacks := _lacks_gpu(cluster_gpus):
        message, remedy = "flash_attention_2 needs a GPU", f'{lacks} send "sdpa".'
    elif not any(importlib.util.find_spec(name) for name in ("flash_attn", "kernels")):
        message = "flash_attention_2 is not installed"
        remedy = 'Install it beside the server (pip install flash-attn, or kernels), or send "sdpa".'
    else:
        return
    raise BadInput(message, f"{remedy} Left out, transformers chooses.", field="attn_implementation")


def _check_liger(cluster_gpus: int | None) -> None:
    """Refuse kernels by a package that is not here, runs on no device of this machine, or replaces losses too."""
    if lacks := _lacks_gpu(cluster_gpus):
        message, remedy = "liger needs a GPU", f"{lacks} leave it out."
    elif importlib.util.find_spec("liger_kernel") is None:
        message, remedy = "liger-kernel is not installed", "Install it beside the server (pip install liger-kernel)."
    elif tuple(map(int, importlib.metadata.version("trl").split(".")[:2])) < _LIGER_BY_LAYER:
        message, remedy = "liger needs trl 1.16", "An older one takes its losses too: leave it out, or upgrade trl."
    else:
        return
    raise BadInput(message, remedy, field="liger")


def _check_vllm(cluster_gpus: int | None) -> None:
    """Refuse generation by a package that is not here, or runs on no device of this machine."""
    if lacks := _lacks_gpu(cluster_gpus):
        message, remedy = "use_vllm needs a GPU", f"{lacks} leave it out."
    elif importlib.util.find_spec("vllm") is None:
        message = "vllm is not installed"
        remedy = "Install it beside the server (pip install 'trl[vllm]', which knows the releases), or leave it out."
    else:
        return
    raise BadInput(message, f"{remedy} Left out, transformers generates.", field="use_vllm")


def _check_compiler() -> None:
    """Refuse compiled kernels where nothing compiles them; torch looks for these."""
    on_gpu = bool(visible_gpus())  # Triton's small parts are C
    looked_for = (os.environ.get("CC", "gcc"), "clang") if on_gpu else (os.environ.get("CXX", "g++"),)
    if not any(shutil.which(name) for name in looked_for):
        message, package = f"There is no {' or '.join(looked_for)} in the server's PATH", "g++"
    elif not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        message, package = "Python's own headers (Python.h) are not here", "python3-dev"
    else:
        return
    raise BadInput(
        "torch_compile needs a compiler",
        f"{message}: apt-get install {package}, or leave it out.",
        field="torch_compile",
    )
