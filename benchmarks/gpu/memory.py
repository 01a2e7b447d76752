"""Memory: the peak of a training beside what preflight reckons, and a training that is far too large."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gpu.attempts import Attempt, job_of, launching
from gpu.bench import Broken
from gpu.records import long_preferences, long_texts, write_records
from gpu.table import Finding, failed, judged, not_shown
from modelforge.admission.estimate.fit import estimate_training
from modelforge.domain.failure_causes import cause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpu.bench import Bench
    from trainer_entry import wire

_WITHIN = 0.2
_STEPS = 3
_CPU_LIMIT = 7_000_000_000
"""Where there is no card that could be too small; the libraries alone take addresses of 4 GB."""
_CONTEXT = """
import os, pynvml, torch
pynvml.nvmlInit()
name = os.environ["CUDA_VISIBLE_DEVICES"]
card = pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
def used(): return pynvml.nvmlDeviceGetMemoryInfo(card).used
before = used()
matrix = torch.ones(1024, 1024, device="cuda", dtype=torch.bfloat16)
(matrix @ matrix).sum().item()
print(used() - before - torch.cuda.memory_reserved())
"""
"""What a CUDA context with its libraries takes of the card beside what torch has reserved."""


class _Shape(Struct, frozen=True):
    """One training whose peak is reckoned. `all_weights`: not an adapter."""

    batch: int
    length: int
    strategy: wire.Strategy
    all_weights: bool = False

    def __str__(self) -> str:
        return f"{self.strategy}{' of all weights' if self.all_weights else ''}, {self.batch} x {self.length}"


_SHAPES = (
    _Shape(8, 1024, "sft"),
    _Shape(4, 512, "sft", all_weights=True),
    _Shape(4, 2048, "qlora"),
    _Shape(4, 512, "dpo"),
)


def memory_against_preflight(bench: Bench) -> Iterator[Finding]:
    """Four shapes, and the context of CUDA, which preflight counts as the process."""
    estimates, works = [], []
    for shape in _SHAPES:
        length = shape.length // bench.sizes.memory_scale
        batch = max(2, shape.batch // bench.sizes.memory_scale)
        estimate, work = _measured(bench, shape, batch, length)
        estimates.append(estimate)
        works.append(work)
    yield _context(bench, estimates[0].process)
    for shape, estimate, attempt in zip(_SHAPES, estimates, bench.together(works), strict=True):
        yield failed(str(shape), attempt) if isinstance(attempt, Broken) else _compared(bench, shape, estimate, attempt)


class _Estimate(Struct, frozen=True):
    """Bytes by preflight: all but the process, and the process."""

    training: int
    process: int


def _measured(bench: Bench, shape: _Shape, batch: int, length: int) -> tuple[_Estimate, Callable[[], Attempt]]:
    name = str(shape).replace(", ", "-").replace(" ", "")
    folder = bench.room(f"memory-{name}")
    make = long_preferences if shape.strategy == "dpo" else long_texts
    dataset = write_records(folder / "records.jsonl", make(batch * _STEPS, length))
    given: dict[str, Any] = {
        **bench.precision,
        "per_device_train_batch_size": batch,
        "max_seq_length": length,
        "max_steps": _STEPS,
        "use_lora": not shape.all_weights,
    }
    job = job_of(bench.model, dataset, folder, shape.strategy, "huggingface", given)
    fit = asyncio.run(estimate_training(job, folder, waits=True)).memory
    if fit.required_bytes is None:
        raise Broken(f"preflight reckons nothing for {shape}: {fit.note}")
    estimate = _Estimate(fit.required_bytes - fit.process_bytes, fit.process_bytes)
    return estimate, launching(bench, f"memory-of-{name}", dataset, strategy=shape.strategy, **given)


def _compared(bench: Bench, shape: _Shape, estimate: _Estimate, attempt: Attempt) -> Finding:
    words = f"peak within {_WITHIN:.0%} of the estimate"
    reckoned = estimate.training / 1e6
    peak = attempt.steps()[-1].gpu_memory_mb
    if peak is None:
        if bench.on_gpu:
            raise Broken(f"{attempt.name} reported no memory of its GPU")
        host = attempt.steps()[-1].memory_mb or 0.0
        reckoned += estimate.process / 1e6
        text = f"reckoned {reckoned:,.0f} MB; the process on this CPU had {host:,.0f} MB"
        return judged(str(shape), text, words, holds=None, estimate_mb=reckoned, peak_mb=host)
    text = f"peak {peak:,.0f} MB, reckoned {reckoned:,.0f} MB: {peak / reckoned:.2f} of it"
    holds = abs(peak - reckoned) <= _WITHIN * reckoned
    return judged(str(shape), text, words, holds=holds, estimate_mb=reckoned, peak_mb=peak)


def _context(bench: Bench, process: int) -> Finding:
    what, bound = "CUDA's context", "no more than preflight counts as the process"
    if not bench.on_gpu:
        return not_shown(what, "there is none on a CPU")
    command = [sys.executable, "-c", _CONTEXT]
    done = subprocess.run(command, env=bench.environment(), capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        return failed(what, Broken(done.stderr[-300:]))
    taken = int(done.stdout) / 1e6
    return judged(
        what, f"{taken:,.0f} MB, counted {process / 1e6:,.0f} MB", bound, holds=taken <= process / 1e6, taken_mb=taken
    )


def memory_that_is_not_there(bench: Bench) -> Iterator[Finding]:
    """A batch far too large, past preflight: the trainer says what ran out, and the cause says what would work."""
    sizes = bench.sizes
    folder = bench.room("too-large")
    dataset = write_records(folder / "records.jsonl", long_texts(sizes.huge_batch, sizes.huge_length))
    attempt = Attempt(
        bench,
        "far-too-large",
        dataset,
        per_device_train_batch_size=sizes.huge_batch,
        max_seq_length=sizes.huge_length,
        gradient_checkpointing=False,
        max_steps=2,
    )
    if not bench.on_gpu:
        attempt.limit_memory(_CPU_LIMIT)
    what, bound = "a batch far too large", "OutOfMemory that names CUDA, and what would work"
    word = attempt.wait_for_failure()
    cause = cause_of(word, None, "", known=None)
    text = f"{cause.kind}: {cause.message}"
    helps = [name for name in ("per_device_train_batch_size", "max_seq_length", "qlora") if name in cause.message]
    names_it = "CUDA" in cause.message or not bench.on_gpu
    yield judged(what, text, bound, holds=cause.kind == "OutOfMemory" and names_it and bool(helps))
