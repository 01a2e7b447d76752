"""A trainer that speaks the wire and trains nothing: `python -m support.scripted_trainer FOLDER`, as a real program.

What it does stands in the job's `output_name`: `completes`, `waits` (a step each 20 ms until SIGTERM, or until
`max_steps`), `saves` (the same, with a checkpoint at SIGTERM), `raises`, `dies` (SIGKILL to itself),
`leaves-orphan`, `ignores-sigterm`, `garbage`, `speechless`,
`wedges` (says its last word and stays), `chatty` (ten thousand messages at once), `dies-once` (SIGKILL to itself in
the first attempt, after a checkpoint), `devours` (takes memory until there is none), `nan` (figures that are none),
`breathes` (says nothing for four seconds, and shows that it lives),
`obeys` (three steps, and then silent: three more for each file `order` in its folder that says `step`; `finish`, or
SIGTERM, ends it). Where its model's folder has a `recital.jsonl`, it says that (support.recital). SIGUSR1 makes it save
a checkpoint. With `--standby` in place of the folder it waits for one, or hangs where a file `standby-hangs` lies
beside the data directory, or ends with what that says. What it was given stands in `environment.json` beside its spec.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec

from support.recital import Line, recital_of
from trainer_entry import wire
from trainer_entry.runtime.stdout import LineWriter

lines = LineWriter(1)


def attempt_folder() -> Path:
    """What it was started with; or, where it stands by, what it is told in time."""
    if sys.argv[1] != wire.STANDBY:
        return Path(sys.argv[1])
    hangs = Path("/proc/self/fd/1").readlink().parents[3] / "standby-hangs"
    if hangs.exists():
        if words := hangs.read_text():
            sys.exit(words)
        ctypes.CDLL(None).pause()
    with contextlib.suppress(BrokenPipeError):  # who gave the order already waits for no word
        os.write(0, b"warm\n")
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1 << 16) or sys.exit(0)
    told = msgspec.json.decode(line, type=wire.StandbyOrder)
    os.environ.update(told.set)
    return Path(told.folder)


folder = attempt_folder()
spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=wire.AttemptSpec)
behaviour = spec.job.output_name
total = spec.job.parameters.max_steps if spec.job.parameters.max_steps > 0 else 10
first = int((spec.resume_from or "-0").rpartition("-")[2])
seq = 0
stop = False
save = False


def next_seq() -> int:
    global seq  # noqa: PLW0603 - a script's state
    seq += 1
    return seq


def say(message: wire.AnyTrainerMessage) -> None:
    lines.write(message)


def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
    global stop  # noqa: PLW0603
    stop = True


def ask_to_save(_signal: int, _frame: FrameType | None) -> None:
    global save  # noqa: PLW0603
    save = True


def save_checkpoint(at: int) -> None:
    checkpoint = Path(spec.job.checkpoint_dir) / f"checkpoint-{at}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"weights")
    manifest = wire.CheckpointManifest(step=at, sizes={"weights": 7})
    (checkpoint / wire.CHECKPOINT_MANIFEST).write_bytes(msgspec.json.encode(manifest))
    say(wire.CheckpointWritten(attempt=spec.attempt, seq=next_seq(), step=at, path=str(checkpoint)))


def start() -> None:
    environment = wire.Environment(python="3", platform="test", device="cpu", versions={"torch": "none"})
    say(
        wire.TrainerStarted(
            attempt=spec.attempt,
            seq=next_seq(),
            parameters=msgspec.structs.replace(spec.job.parameters, learning_rate=1e-4),
            trainer_arguments={},
            environment=environment,
            total_steps=total,
            total_epochs=2,
            train_examples=spec.job.dataset.num_examples,
            eval_examples=0,
            trainable_parameters=1,
            all_parameters=2,
            dataset_sha256=spec.job.dataset.sha256,
            base_revision=None,
            chat_template=False,
            resumed_step=first,
        )
    )


def step(number: int) -> None:
    say(
        wire.StepLogged(
            attempt=spec.attempt,
            seq=next_seq(),
            step=number,
            total_steps=total,
            epoch=2 * number / total,
            elapsed_seconds=float(number),
            eta_seconds=float(total - number),
            loss=None if behaviour == "nan" else 1 / number,
            learning_rate=1e-4,
            nonfinite=("loss",) if behaviour == "nan" else (),
        )
    )


def finish() -> None:
    output = Path(spec.job.output_dir)
    output.mkdir(parents=True)
    (output / "adapter_model.safetensors").write_bytes(b"weights")
    size = 7
    metrics: dict[str, float | None] = {"final_loss": 1 / total}
    saved = wire.SavedModel(path=str(output), kind="adapter", size_bytes=size, metrics=metrics)
    number = next_seq()
    say(wire.TrainerFinished(attempt=spec.attempt, seq=number, step=total, messages=number, model=saved))


def stopped(at: int) -> None:
    saved = None
    if behaviour == "saves":
        save_checkpoint(at)
        saved = f"{spec.job.checkpoint_dir}/checkpoint-{at}"
    number = next_seq()
    say(wire.TrainerStopped(attempt=spec.attempt, seq=number, step=at, messages=number, checkpoint=saved))


def next_order(at: int) -> str:
    """What was ordered; after SIGTERM, that."""
    global save  # noqa: PLW0603
    order = folder / "order"
    while not stop:
        if save:
            save = False
            save_checkpoint(at)
        if order.exists():
            what = order.read_text()
            order.unlink()
            return what
        time.sleep(0.01)
    return "stop"


def obey() -> None:
    at = first
    while True:
        for _ in range(3):
            at += 1
            step(at)
        match next_order(at):
            case "stop":
                stopped(at)
                sys.exit(0)
            case "finish":
                finish()
                sys.exit(0)
            case _:
                pass


def recite(said: Iterator[Line]) -> None:
    at = first
    for line in said:
        match line:
            case {"type": "wait", "seconds": float() | int() as seconds}:
                wait(seconds, at)
            case {"type": "print", "text": str() as text}:
                print(text, file=sys.stderr, flush=True)  # noqa: T201 - it goes to the log
            case _:
                number = next_seq()
                whole = {**line, "attempt": spec.attempt, "seq": number}
                if line["type"] == "failed":
                    whole["messages"] = number
                message = msgspec.convert(whole, wire.AnyTrainerMessage)
                say(message)
                if isinstance(message, wire.TrainerFailed):
                    sys.exit(1)
                if isinstance(message, wire.StepLogged):
                    at = message.step
    finish()
    sys.exit(0)


def wait(seconds: float, at: int) -> None:
    """Until then, or SIGTERM, which ends it after step `at`."""
    global save  # noqa: PLW0603
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if save:
            save = False
            save_checkpoint(at)
        if stop:
            stopped(at)
            sys.exit(0)
        time.sleep(min(0.01, max(0.0, until - time.monotonic())))


signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "ignores-sigterm" else ask_to_stop)
signal.signal(signal.SIGUSR1, ask_to_save)
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
if behaviour == "speechless":
    sys.exit(3)
start()
if (told := recital_of(spec.job.model_path)) is not None:
    recite(told)
match behaviour:
    case "garbage":
        os.write(1, b"no json\n\n\xff\xfe\x00\n" + b"x" * (wire.MAX_LINE_BYTES + 5) + b'\n{"type":"step"}\n[NaN]\n')
    case "chatty":
        for _ in range(10_000):
            say(wire.PhaseStarted(attempt=spec.attempt, seq=next_seq(), phase="training"))
    case "raises":
        number = next_seq()
        say(
            wire.TrainerFailed(
                attempt=spec.attempt,
                seq=number,
                kind="ValueError",
                message="the script says so",
                traceback="Traceback: of a script",
                messages=number,
            )
        )
        sys.exit(1)
    case "dies":
        step(1)
        os.kill(os.getpid(), signal.SIGKILL)
    case "dies-once" if spec.attempt == 1:
        for number in (1, 2, 3):
            step(number)
        save_checkpoint(3)
        step(4)
        os.kill(os.getpid(), signal.SIGKILL)
    case "breathes":  # longer than it takes to be called stalled
        for _ in range(40):
            time.sleep(0.1)
            lines.touch()
    case "devours":
        step(1)
        taken = []
        while True:
            taken.append(os.urandom(1 << 24))
    case "leaves-orphan":
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (folder / "orphan.json").write_text(json.dumps(orphan.pid))
    case "obeys":
        obey()
    case _:
        pass
at = 0
for at in range(first + 1, total + 1):
    step(at)
    if save:
        save = False
        save_checkpoint(at)
    if stop:
        stopped(at)
        sys.exit(0)
    if behaviour in {"waits", "saves", "ignores-sigterm"}:
        time.sleep(0.02)
finish()
if behaviour == "wedges":
    ctypes.CDLL(None).pause()
