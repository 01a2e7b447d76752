"""A trainer that is started ahead: it imports what trainings need, and waits for the attempt that it is to be.

It touches no GPU and reads no model; where there is no GPU, it makes a step with one of its own (`practice`). The
attempt comes as one line on the socket that stdin is, through the shim; where that ends first, so does this process,
in the middle of an import too. What an import has settled for good, such as the threads of OpenMP or a library that was
hidden, may not fit the attempt: then the process starts anew in its own place, as the same process of its launcher.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import msgspec

from trainer_entry.providers.libraries import hide_all, import_models, needs_quantizer
from trainer_entry.runtime.attempt import begin
from trainer_entry.runtime.failures import ModelUnavailable
from trainer_entry.runtime.imports import importing
from trainer_entry.runtime.secrets import claim_secrets, redact_streams
from trainer_entry.runtime.signals import hold_back
from trainer_entry.runtime.stdout import LineWriter, claim_stdout, note
from trainer_entry.strategies.process import settle_environment
from trainer_entry.wire import AttemptSpec, JobSpec, StandbyOrder
from trainer_entry.wire.secret_files import PROXIES_VARIABLE, TRACKERS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer_entry.runtime.attempt import Begun

_ORDERS = 0
"""The descriptor that orders come by."""
_MODULE = "trainer_entry.train"
_READ_LATE = frozenset({PROXIES_VARIABLE, TRACKERS_VARIABLE})
"""Variables that are read when an attempt begins, and not while its libraries are imported."""
_MOST_BYTES = 1 << 16
_ERROR = 1


def stand_by() -> Begun:
    """Import, say so, and wait for an attempt, which has begun when this returns. Without one the process ends."""
    before = dict(os.environ)
    stdout = claim_stdout()  # before any import that could print
    redact_streams()
    hold_back()
    attempts: SimpleQueue[Begun] = SimpleQueue()
    ordered = threading.Event()
    # A thread, so that a stop, or the server's end, is heard in the middle of an import.
    given = (stdout, before, attempts, ordered)
    threading.Thread(target=_take_order, args=given, name="orders", daemon=True).start()
    hide_all()
    settle_environment()
    with importing():
        _import_all()
    if not ordered.is_set():  # else the attempt is there, and makes a step of its own
        _practise()
    with contextlib.suppress(OSError):  # whoever it is for is gone, or has given the order already
        os.write(_ORDERS, b"warm\n")
    return attempts.get()


def _take_order(stdout: int, before: Mapping[str, str], attempts: SimpleQueue[Begun], ordered: threading.Event) -> None:
    """Wait for the order, and begin the attempt; `before`: the environment as no import had changed it yet.

    `ordered` is set as soon as something of the order is there.
    """
    line = b""
    try:
        while not line.endswith(b"\n"):
            if not (said := os.read(_ORDERS, _MOST_BYTES)):
                os._exit(0)
            ordered.set()
            line += said
        order = msgspec.json.decode(line, type=StandbyOrder)
        _put_null_in_place_of_stdin()
        for name in order.unset:
            os.environ.pop(name, None)
        os.environ.update(order.set)
        folder = Path(order.folder)
        job = msgspec.json.decode((folder / "spec.json").read_bytes(), type=AttemptSpec).job
        if {*order.set, *order.unset} - _READ_LATE or _needs_other_libraries(job):
            _start_anew(folder, stdout, changed(before, order))
        claim_secrets()
        sys.argv[1:] = [str(folder)]
        attempts.put(begin(folder, LineWriter(stdout)))
    except BaseException:  # noqa: BLE001 - the main thread would wait for ever
        note(traceback.format_exc())
        os._exit(_ERROR)


def _needs_other_libraries(job: JobSpec) -> bool:
    """Whether a job needs a library that was hidden, or one that has to be there before the others."""
    try:
        return job.provider == "unsloth" or needs_quantizer(job)
    except ModelUnavailable:
        return False  # the attempt says why


def changed(environment: Mapping[str, str], order: StandbyOrder) -> dict[str, str]:
    """An environment as an order wants it."""
    return {name: value for name, value in environment.items() if name not in order.unset} | order.set


def _start_anew(folder: Path, stdout: int, environment: Mapping[str, str]) -> None:
    os.dup2(stdout, 1)
    command = [sys.executable, "-m", _MODULE, str(folder)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is meant


def _put_null_in_place_of_stdin() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, _ORDERS)
    os.close(null)


def _import_all() -> None:
    """Import what an attempt at a training imports, those of its libraries that transformers imports late among it."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
    from peft.utils import transformers_weight_conversion  # noqa: F401

    from trainer_entry.artifacts import initial_adapter, rehearsal, save  # noqa: F401
    from trainer_entry.data import embedding, generation_settings, token_cache  # noqa: F401
    from trainer_entry.providers import huggingface  # noqa: F401
    from trainer_entry.rewards import policy_rewards  # noqa: F401
    from trainer_entry.runtime import environment  # noqa: F401
    from trainer_entry.strategies import dpo, earlier_adapter, reward_model, rlhf, sft  # noqa: F401
    from trainer_entry.tasks import (  # noqa: F401
        policy_prompts,
        preferences,
        question_answering,
        summarization,
        text_generation,
    )
    from trainer_entry.training import arguments, callback, defaults, outcome, trainer  # noqa: F401

    import_models()


def _practise() -> None:
    from trainer_entry.strategies.practice import practise

    practise()
