"""A process that has imported the trainers' libraries once, and forks the trainers of one pytest process.

    python -m support.warm_trainer

A line of JSON asks for one thing on stdin, and a line on stdout answers it: `start` forks a program, `poll` reaps it
if it has ended, `signal` sends it a signal. Nothing is computed before a fork and no thread runs, so that a child is
what a fresh process is after the same imports; only the seed of the hashes is shared. It ends when its stdin does, and
what it has forked goes on.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TESTS = Path(__file__).parents[1]
_IMPORTED = (
    *("torch", "datasets", "transformers", "peft", "accelerate", "trl", "bitsandbytes"),
    *("trainer_entry.train", "trainer_entry.infer", "trainer_entry.runtime.environment"),
    *("trainer_entry.artifacts.save", "trainer_entry.artifacts.merge", "trainer_entry.artifacts.model_card"),
    *("trainer_entry.strategies.sft", "trainer_entry.strategies.dpo", "trainer_entry.strategies.rlhf"),
    *("trainer_entry.strategies.reward_model", "trainer_entry.strategies.qlora"),
    *("trainer_entry.tasks.text_generation", "trainer_entry.tasks.summarization"),
    *("trainer_entry.tasks.question_answering", "trainer_entry.tasks.preferences"),
    *("trainer_entry.training.defaults", "trainer_entry.training.arguments", "trainer_entry.training.trainer"),
    *("trainer_entry.providers.huggingface", "trainer_entry.providers.precision", "trainer_entry.inference.generation"),
)
_OF_ONE_TEST = frozenset({"PYTEST_CURRENT_TEST"})
_POLL_SECONDS = 0.01


class ForkedProcess:
    """What the tests use of subprocess.Popen, for a process that the warm one has forked."""

    def __init__(self, asks: Callable[..., Any], pid: int) -> None:
        self._asks = asks
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._asks(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            self._asks(signal=int(number), pid=self.pid)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self.returncode is None:  # as subprocess.Popen says it
            warnings.warn(f"process {self.pid} is still running", ResourceWarning, stacklevel=2, source=self)


class WarmTrainer:
    """The other end of the process's pipes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = _lasting(environment)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the process runs
        search = os.pathsep.join([environment["PYTHONPATH"], str(_TESTS)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.warm_trainer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment, **_BEFORE_IMPORTS, "PYTHONPATH": search},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        atexit.register(self._end)

    @classmethod
    @functools.cache
    def of_this_process(cls) -> Self:
        """The one that all tests of this pytest process share."""
        from support.trainer_attempts import child_environment

        return cls(child_environment())

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether its libraries were imported with these variables."""
        return _lasting(environment) == self._environment

    def start(
        self,
        program: str,
        arguments: Sequence[str] = (),
        *,
        stdin: Path | str = os.devnull,
        stdout: Path,
        stderr: Path,
        environment: Mapping[str, str],
    ) -> ForkedProcess:
        """Fork `python -m PROGRAM ARGUMENTS`; what it prints is appended to the files."""
        for file in (stdout, stderr):
            file.touch()  # it is there as soon as the process is
        pid = self._ask(
            start=program,
            arguments=list(arguments),
            descriptors=[str(stdin), str(stdout), str(stderr)],
            environment=dict(environment),
            folder=str(Path.cwd()),
        )
        return ForkedProcess(self._ask, pid)

    def _ask(self, **request: Any) -> Any:
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.flush()
        answer = json.loads(self._answers.readline() or b'{"error": "It has ended."}')
        if "error" in answer:
            self._log.seek(0)
            raise RuntimeError(f"{answer['error']}\n{self._log.read().decode(errors='replace')}")
        return answer["answer"]

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()
        self._answers.close()
        self._log.close()


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _OF_ONE_TEST}


# ---- the process itself ----

# As trainer_entry.train sets them before its imports. The allocator of pyarrow would run a thread of its own.
_BEFORE_IMPORTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


def main() -> None:
    """Answer until stdin ends."""
    sys.path.remove(str(_TESTS))  # a trainer does not see the tests
    from trainer_entry.runtime.stdout import claim_stdout

    answers = claim_stdout()  # before any import that could print
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a child's collections leave the shared pages alone
    for line in sys.stdin.buffer:
        try:
            answer: dict[str, Any] = {"answer": _answer(json.loads(line), answers)}
        except Exception:  # noqa: BLE001 - a failure is an answer
            answer = {"error": traceback.format_exc()}
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _answer(request: dict[str, Any], answers: int) -> int | None:
    match request:
        case {"start": program}:
            return _fork(program, request, answers)
        case {"poll": pid}:
            ended, status = os.waitpid(pid, os.WNOHANG)
            return os.waitstatus_to_exitcode(status) if ended else None
        case {"signal": number, "pid": pid}:
            os.kill(pid, number)  # not reaped yet: the pid is still its own
            return None
        case _:
            raise ValueError(request)


def _fork(program: str, request: dict[str, Any], answers: int) -> int:
    threads = [
        Path(f"/proc/self/task/{thread}/comm").read_text().strip()
        for thread in os.listdir("/proc/self/task")  # noqa: PTH208 - their numbers
    ]
    if len(threads) != 1:
        raise RuntimeError(f"A process with the threads {threads} cannot be forked: set MODELFORGE_TEST_COLD=1.")
    pid = os.fork()
    if pid == 0:
        os.close(answers)
        _become(program, request)
    return pid


def _become(program: str, request: dict[str, Any]) -> NoReturn:
    """Be what `python -m PROGRAM` is after its imports."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        flags = (os.O_RDONLY, *2 * (os.O_WRONLY | os.O_APPEND | os.O_CREAT,))
        for descriptor, (path, flag) in enumerate(zip(request["descriptors"], flags, strict=True)):
            opened = os.open(path, flag, 0o644)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the other one has read ahead
        sys.argv = [program, *request["arguments"]]
        code = _run(program, request["arguments"])
    except BaseException:  # noqa: BLE001 - as the interpreter reports it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(program: str, arguments: list[str]) -> int:
    """What stands at the end of the program's module."""
    import numpy as np

    from trainer_entry import infer, train
    from trainer_entry.runtime.attempt import run_attempt

    np.random.seed()  # noqa: NPY002 - the libraries draw from it, and no two processes begin with the same state
    match program:
        case "trainer_entry.train":
            return run_attempt(arguments[0], train.run)
        case "trainer_entry.infer":
            return infer.main()
        case _:
            raise ValueError(program)


if __name__ == "__main__":
    main()
