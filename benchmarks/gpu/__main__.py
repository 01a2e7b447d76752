"""What only a GPU shows, as one table: see docs/gpu.md.

    PYTHONPATH=benchmarks python -m gpu                                  every line, on the first GPU
    PYTHONPATH=benchmarks python -m gpu --only memory --only resume      some lines
    PYTHONPATH=benchmarks python -m gpu --device cpu                     the same lines on a tiny model, to try them

The exit code is 1 where a line falls short, fails, or has no time, and 0 where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.bench import FULL, TINY, Bench
from gpu.lines import LINES, run_line
from gpu.models import prepare_model
from gpu.table import HEAD, Report, Row
from modelforge.machine.devices import cpu_count, gpu_memory, visible_gpus

if TYPE_CHECKING:
    from types import FrameType

_ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "unsloth")
_AT_ONCE_BYTES = 15_000_000_000
"""What each of the trainings that share a card may need, at the most."""
_MOST_AT_ONCE = 8
_CPU_IS_SLOWER = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print as it goes."""
    options = _options(arguments)
    cards = gpu_memory() if options.device == "cuda" else ()
    if options.device == "cuda" and not cards:
        print("no GPU")
        return 0
    _let_children_import()
    signal.signal(signal.SIGTERM, _end)
    ends = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        tiny = options.device == "cpu"
        sizes = TINY if tiny else FULL
        which = prepare_model(folder / "model", sizes, options.model, tiny=tiny)
        if not tiny and not _torch_sees_a_gpu():
            print("The driver has a GPU, and torch sees none: install a build of torch for it.")
            return 1
        at_once = options.at_once or _trainings_at_once(cards[0].total if cards else 0)
        head = {**_machine(options.device), "model": which, "trainings at once": str(at_once)}
        _print_head(head)
        bench = Bench(options.device, sizes, folder, folder / "model", at_once)
        for line in LINES:
            if options.only and line.name not in options.only:
                continue
            for row in run_line(line, bench, ends, _CPU_IS_SLOWER if tiny else 1.0):
                rows.append(row)
                print(row.as_markdown(), flush=True)
                Report(head=head, rows=rows).write(options.out)
    report = Report(head=head, rows=rows)
    short = sum(row.falls_short for row in rows)
    print(f"\n{len(rows)} rows, {short} of them short; {options.out}/gpu.md and gpu.json have them", flush=True)
    return report.exit_code


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: tiny, to try the lines")
    parser.add_argument("--only", action="append", choices=[line.name for line in LINES], help="a line, or several")
    parser.add_argument("--minutes", type=float, default=None, help="of the whole run; 8, and 60 on a CPU")
    parser.add_argument("--model", type=Path, help="a causal model's folder; by default SmolLM2-135M or its shape")
    parser.add_argument("--at-once", type=int, help="trainings that share the card where no speed is measured")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="the folder for gpu.md and gpu.json")
    options = parser.parse_args(arguments)
    options.minutes = options.minutes or (8.0 if options.device == "cuda" else 60.0)
    return options


def _let_children_import() -> None:
    """The trainers and the bare libraries find what this process found, wherever it was started from."""
    path = [str(_ROOT), str(_ROOT / "benchmarks"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)


def _machine(device: str) -> dict[str, str]:
    """The card, and the libraries."""
    found = {name: number for name in _LIBRARIES if (number := _version(name)) is not None}
    return {
        "device": _card() if device == "cuda" else f"the CPU, {cpu_count()} cores",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {number}" for name, number in found.items()),
    }


def _card() -> str:
    import pynvml

    pynvml.nvmlInit()
    name = visible_gpus()[0]
    card = pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
    total = int(pynvml.nvmlDeviceGetMemoryInfo(card).total)
    driver = pynvml.nvmlSystemGetDriverVersion()
    return f"{pynvml.nvmlDeviceGetName(card)}, {total / 1e9:.0f} GB, driver {driver}"


def _torch_sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _trainings_at_once(memory: int) -> int:
    """As many as the card has the memory and this machine the processors for."""
    return max(1, min(_MOST_AT_ONCE, memory // _AT_ONCE_BYTES, cpu_count() // 2))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print_head(head: dict[str, str]) -> None:
    for name, value in head.items():
        print(f"- {name}: {value}")
    print(f"\n{HEAD}", flush=True)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)  # by way of every `finally`: nothing that was started is left


if __name__ == "__main__":
    sys.exit(main())
