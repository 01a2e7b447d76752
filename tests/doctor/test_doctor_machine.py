"""What the doctor says of a machine, as the kernel's files and the installed packages tell it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.running_server import environment

from modelforge.doctor import software
from modelforge.doctor.finding import Finding
from modelforge.doctor.machine import machine_findings
from modelforge.doctor.software import HUB_FOLDER, package_findings, software_findings, torch_finding
from modelforge.machine.cgroups import limits_of
from modelforge.machine.devices import cpu_count
from trainer_entry.providers import builtin_model

GB = 1_000_000_000


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a machine with 16 GB of memory, 10 of them free."""
    for folder in ("proc/self", "proc/1", "dev/shm", "sys/fs/cgroup"):
        (tmp_path / folder).mkdir(parents=True)
    told = "MemTotal: 16000000 kB\nMemAvailable: 10000000 kB\nSwapTotal: 2000000 kB\nSwapFree: 1000000 kB\n"
    (tmp_path / "proc/meminfo").write_text(told)
    return tmp_path


def test_this_machine_can_run_the_server() -> None:
    findings = by_subject(list(machine_findings()))
    assert {"cores", "memory", "swap", "kernel", "shared memory", "open files", "init"} == findings.keys()
    assert findings["kernel"].level == "ok"
    assert {finding.level for finding in findings.values()} <= {"ok", "warning"}


def test_the_installed_packages_are_those_that_are_asked_for() -> None:
    findings = by_subject(list(software_findings()))
    assert {finding.level for finding in findings.values()} <= {"ok", "warning"}
    assert findings["python"].found.startswith(".".join(map(str, sys.version_info[:3])))
    assert re.match(r"[1-9]\d*\b", findings["packages"].found)


def test_memory_is_what_the_machine_has_where_nothing_limits_it(root: Path) -> None:
    findings = by_subject(list(machine_findings(root)))
    assert (findings["memory"].level, findings["memory"].found) == ("ok", "10.2 GB available of 16.4 GB")
    assert findings["swap"].found == "1.0 GB free of 2.0 GB"


def test_little_memory_is_told(root: Path) -> None:
    (root / "proc/meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 3000000 kB\n")
    finding = by_subject(list(machine_findings(root)))["memory"]
    assert (finding.level, finding.found) == ("warning", "3.1 GB available of 16.4 GB")
    assert "qlora" in finding.remedy


def test_the_limits_of_a_container_count_in_version_2(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/a/b\n")
    (root / "proc/self/mountinfo").write_text("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group = root / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("50000 100000\n")
    (group / "memory.max").write_text(f"{6 * GB}\n")
    (group / "memory.current").write_text(f"{5 * GB}\n")
    (group / "memory.stat").write_text(f"anon 7\ninactive_file {GB}\n")
    (group.parent / "memory.max").write_text("max\n")
    limits = limits_of(root)
    assert (limits.cores, limits.memory, limits.memory_left) == (0.5, 6 * GB, 2 * GB)
    assert cpu_count(root) == 1
    findings = by_subject(list(machine_findings(root)))
    assert (findings["memory"].level, findings["memory"].found) == ("warning", "2.0 GB available of 6.0 GB")
    assert findings["cores"].found == f"0.5 of {os.cpu_count()} may be used"


def test_the_limits_of_a_container_count_in_version_1(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    (root / "proc/self/mountinfo").write_text(
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
        "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    memory, cpu = root / "sys/fs/cgroup/memory", root / "sys/fs/cgroup/cpu"
    memory.mkdir()
    cpu.mkdir()
    (memory / "memory.limit_in_bytes").write_text(f"{8 * GB}\n")
    (memory / "memory.usage_in_bytes").write_text(f"{3 * GB}\n")
    (memory / "memory.stat").write_text(f"total_inactive_file {GB}\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    limits = limits_of(root)
    assert (limits.cores, limits.memory, limits.memory_left) == (float("inf"), 8 * GB, 6 * GB)
    (cpu / "cpu.cfs_quota_us").write_text("250000\n")
    assert limits_of(root).cores == 2.5
    assert cpu_count(root) == min(2, len(os.sched_getaffinity(0)))


def test_children_of_process_1_that_nobody_reaps_are_told(root: Path) -> None:
    for pid, state, parent in ((7, "Z", 1), (8, "Z", 7), (9, "S", 1)):
        (root / f"proc/{pid}").mkdir()
        (root / f"proc/{pid}/stat").write_text(f"{pid} (a) Z 1 (b) {state} {parent} 0 0")
    finding = by_subject(list(machine_findings(root)))["init"]
    assert (finding.level, "1 have ended" in finding.found) == ("warning", True)
    assert "--init" in finding.remedy
    (root / "proc/7/stat").unlink()
    assert by_subject(list(machine_findings(root)))["init"].level == "ok"


def test_no_shared_memory_is_told(root: Path) -> None:
    (root / "dev/shm").rmdir()
    finding = by_subject(list(machine_findings(root)))["shared memory"]
    assert (finding.level, "--shm-size" in finding.remedy) == ("warning", True)


def test_few_open_files_are_told(tmp_path: Path) -> None:
    command = f"ulimit -n 256; exec {sys.executable} -m modelforge doctor --data-dir {tmp_path / 'none'}"
    shell = shutil.which("sh")
    assert shell
    ended = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True, env=environment())
    said = ended.stdout.splitlines()
    (at,) = [number for number, line in enumerate(said) if " open files " in line]
    assert said[at].startswith("warning")
    assert said[at].endswith("256 for one process")
    assert "ulimit -n 1024" in said[at + 1]


# ---- what is installed ----


def test_a_package_that_is_missing_or_old_is_told_with_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "demanding-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: demanding\nVersion: 1.0\nRequires-Python: >=3.99\n"
        "Requires-Dist: msgspec>=99\nRequires-Dist: msgspec-that-is-not-there<3\nRequires-Dist: aiohttp>=3\n"
        'Requires-Dist: not-asked-for; extra == "dev"\nRequires-Dist: nor-this; sys_platform == "win32"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    python, old, missing = package_findings("demanding")
    assert (python.level, python.subject, "is not >=3.99" in python.found) == ("problem", "python", True)
    assert (old.level, old.found.startswith("msgspec ")) == ("problem", True)
    assert old.remedy == f"{sys.executable} -m pip install 'msgspec>=99'"
    assert missing.found == "msgspec-that-is-not-there is not installed"
    assert "msgspec-that-is-not-there<3" in missing.remedy
    (unknown,) = package_findings("never-installed")
    assert unknown.level == "warning"


@pytest.mark.parametrize(
    ("version", "libraries", "driver", "level", "says"),
    [
        ("2.13.0+cpu", [], "", "ok", "without an NVIDIA device"),
        ("2.13.0+cpu", [], "580.65.06", "warning", "cannot use the NVIDIA device"),
        ("2.13.0", ["nvidia-nccl-cu13", "sympy"], "580.65.06", "ok", "with an NVIDIA device"),
        ("2.13.0", ["nvidia-nccl-cu13", "sympy"], "550.54.14", "warning", "CUDA 13, the driver is of version 550"),
        ("2.13.0", ["nvidia-nccl-cu13", "sympy"], "", "warning", "CUDA 13, and no NVIDIA driver"),
        ("2.10.0+cu128", [], "550.54.14", "ok", "with an NVIDIA device"),
        ("2.10.0+cu128", [], "", "warning", "CUDA 12, and no NVIDIA driver"),
        ("2.10.0", ["sympy"], "", "ok", "without an NVIDIA device"),
    ],
)
def test_torch_is_the_build_for_the_devices_that_there_are(
    root: Path, version: str, libraries: list[str], driver: str, level: str, says: str
) -> None:
    if driver:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        told = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Wed Mar 22 00:00:00 UTC\nGCC version: 12\n"
        (root / "proc/driver/nvidia/version").write_text(told)
    finding = torch_finding(version, libraries, root)
    assert (finding.level, says in finding.found) == (level, True), finding
    if "cannot use" in says:
        assert finding.remedy.endswith("pip install 'torch==2.13.0'")
    if "no NVIDIA" in says:
        assert finding.remedy.endswith("https://download.pytorch.org/whl/cpu")


def test_a_device_is_known_by_its_node_where_the_driver_says_nothing(root: Path) -> None:
    (root / "dev/nvidiactl").touch()
    assert torch_finding("2.13.0+cpu", [], root).level == "warning"


def test_the_built_in_model_is_found_where_the_trainer_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"models--{builtin_model.HUB_ID.replace('/', '--')}" == HUB_FOLDER
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "fetched when it is first used" in hub().found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (hub().level, "trainer_entry.providers.builtin_model" in hub().remedy) == ("warning", True)
    built = tmp_path / "modelforge" / software.BUILT_IN_MODEL
    built.mkdir(parents=True)
    assert (hub().level, hub().found.endswith(str(built))) == ("ok", True)
    snapshot = tmp_path / "hub" / HUB_FOLDER / "snapshots" / "1a2b"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert hub().found.endswith(str(snapshot))


def hub() -> Finding:
    return by_subject(list(software_findings()))["hub"]
