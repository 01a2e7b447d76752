"""`modelforge demo`: a training from an empty folder to what the model learned, through the API."""

import asyncio
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from modelforge.cli.answers import ModelList
from modelforge.cli.connection import path_of
from modelforge.cli.flags import Server
from modelforge.cli.screen import Screen
from modelforge.cli.training_commands import train
from modelforge.cli.training_flags import TrainingFlags
from modelforge.connection import Connection
from modelforge.demo import TRAINED, held_out_questions
from modelforge.errors import LaunchFailed
from modelforge.machine.trainer_libraries import check_trainer_libraries
from trainer_entry import wire

_SETTINGS = ("num_train_epochs=2", "per_device_train_batch_size=4", "learning_rate=5e-4", "max_seq_length=256")
_LISTENS = re.compile(r"listens on (http://\S+)")
_LONGEST_ANSWER = 90


class _Trained(Struct, frozen=True):
    job_id: str
    path: str


class _Metric(Struct, frozen=True):
    step: int
    loss: float | None = None


class _Metrics(Struct, frozen=True):
    metrics: list[_Metric]


class _Answer(Struct, frozen=True):
    generated_text: str


async def demo(
    *,
    data_dir: Annotated[Path, Parameter(help="where everything is kept")] = Path("modelforge-demo"),
) -> int:
    """Fine-tune the built-in model on an example, and compare its answers with the base model's.

    It starts a server of its own on a free port, and needs no GPU and no hub.
    """
    check_trainer_libraries()
    folder = data_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    console = Screen()
    began = time.monotonic()
    await _fetch_model()
    process, url = await _start_server(folder)
    try:
        console.show(f"Server: {url}")
        server = Server(url=url)
        asked = TrainingFlags(model=wire.BUILT_IN_MODEL, parameters=list(_SETTINGS))
        code = await train(TRAINED, asked=asked, watch=True, server=server)
        if code != 0:
            return code
        async with Connection(url) as client:
            await _compare(client, console)
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    console.show(f"Done in {time.monotonic() - began:.0f} s.")
    again = shlex.join((*_command(), "serve", "--data-dir", str(folder)))
    console.show(f"Serve it again: {again}", soft_wrap=True)
    return 0


async def _fetch_model() -> None:
    """Find, fetch or build the model here, where its progress can be seen, and not only in the trainer's log."""
    command = (sys.executable, "-m", "trainer_entry.providers.builtin_model")
    built = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await built.wait() != 0:
        raise LaunchFailed("The built-in model cannot be had", "What stands above says why.")


async def _start_server(folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    """A server on a free port, and its address."""
    # One training and its answers: what would be started ahead of others takes a processor from them.
    command = (sys.executable, "-m", "modelforge", "serve", "--port", "0", "--cold", "--data-dir", str(folder))
    log = folder / "server.log"
    with log.open("w") as errors:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=errors)
    line = b"" if process.stdout is None else await process.stdout.readline()
    if (match := _LISTENS.search(line.decode())) is None:
        await process.wait()
        raise LaunchFailed("The server did not start", log.read_text().strip())
    return process, match[1]


async def _compare(client: Connection, console: Console) -> None:
    """The same questions, which the training never saw, to the base model and to the tuned one."""
    model = (await client.get("/api/models", ModelList)).models[-1]
    questions = held_out_questions()
    with console.status("asking both models"):
        # All at once: the playground writes them together.
        answers = await asyncio.gather(
            *(_ask(client, question, model.id, base=base) for base in (True, False) for question in questions)
        )
    before, after = answers[: len(questions)], answers[len(questions) :]
    table = Table("prompt", wire.BUILT_IN_MODEL, model.name, show_lines=True)
    for row in zip(questions, before, after, strict=True):
        table.add_row(*row)
    console.print(table)
    trained = await client.get(path_of("models", model.id), _Trained)
    losses = (await client.get(path_of("jobs", trained.job_id, "metrics"), _Metrics)).metrics
    first, last = losses[0], losses[-1]
    console.print(f"Loss: {first.loss:.3f} at step {first.step}, {last.loss:.3f} at step {last.step}.")
    console.print(f"The tuned model lies in {trained.path}", soft_wrap=True)


async def _ask(client: Connection, question: str, model_id: int, *, base: bool) -> str:
    """One answer, always the likeliest words, so that the comparison is fair."""
    asked = {"prompt": question, "temperature": 0, "max_new_tokens": _LONGEST_ANSWER, "model_id": model_id}
    answer = await client.post("/api/playground/generate", {**asked, "base_model": base}, _Answer)
    return answer.generated_text.strip()


def _command() -> tuple[str, ...]:
    """What to type for `modelforge`: it is on the PATH only in a virtual environment that is active."""
    beside = Path(sys.executable).with_name("modelforge")
    if shutil.which("modelforge") is not None:
        return ("modelforge",)
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "modelforge")
