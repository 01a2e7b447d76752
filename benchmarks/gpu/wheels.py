"""Gathers the wheels of wheels.txt for a machine that can fetch nothing: `python -m gpu.wheels FOLDER`.

They are for Linux on x86-64. bitsandbytes comes with its kernels for every release of CUDA, ROCm and XPU; those of one
are kept, which leaves a few megabytes of forty.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

_WANTED = Path(__file__).with_name("wheels.txt")
_PLATFORMS = ("manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in (17, 24, 26, 27, 28, 31, 34)))
_KERNELS = re.compile(r"bitsandbytes/libbitsandbytes_(cuda\d+|rocm\d+|xpu\d+)\.so")


def main(arguments: list[str] | None = None) -> int:
    """Download, and trim."""
    parser = argparse.ArgumentParser(prog="gpu.wheels", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="that of the machine")
    parser.add_argument("--cuda", default="130", help="the CUDA that its torch was built for, as 130 of 13.0")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in options.folder.glob("*.whl"):  # two releases of one package cannot both be installed
        old.unlink()
    platforms = [word for name in _PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", options.python, *platforms),
        *("--dest", str(options.folder), "--requirement", str(_WANTED)),
    ]
    if (code := subprocess.run(command, check=False).returncode) != 0:
        return code
    for wheel in options.folder.glob("bitsandbytes-*.whl"):
        keep_kernels(wheel, f"cuda{options.cuda}")
    sizes = {wheel.name: wheel.stat().st_size for wheel in sorted(options.folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:8.1f} MB  {len(sizes)} wheels in {options.folder}")
    return 0


def keep_kernels(wheel: Path, kept: str) -> None:
    """Leave out of the wheel every library of kernels but one, and its line in RECORD.

    Raises:
        SystemExit: the one that is to be kept is not in it.
    """
    with zipfile.ZipFile(wheel) as whole:
        kernels = {name: found[1] for name in whole.namelist() if (found := _KERNELS.fullmatch(name))}
        if kept not in kernels.values():
            raise SystemExit(f"{wheel.name} has no kernels for {kept}; it has {', '.join(sorted(kernels.values()))}.")
        dropped = {name for name, device in kernels.items() if device != kept}
        trimmed = wheel.with_suffix(".partial")
        with zipfile.ZipFile(trimmed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as smaller:
            for member in whole.infolist():
                if member.filename in dropped:
                    continue
                content = whole.read(member)
                if member.filename.endswith(".dist-info/RECORD"):
                    lines = content.decode().splitlines(keepends=True)
                    content = "".join(line for line in lines if line.split(",")[0] not in dropped).encode()
                smaller.writestr(member, content, zipfile.ZIP_DEFLATED)
    trimmed.replace(wheel)


if __name__ == "__main__":
    sys.exit(main())
