"""Real trainings, started as the supervisor starts them, and what they said."""

from __future__ import annotations

import functools
import resource
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gpu.bench import Broken, kill, last_words
from modelforge.supervisor.local import accelerate_command
from modelforge.supervisor.standby import TRAINER
from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpu.bench import Bench

_decoder: msgspec.json.Decoder[wire.AnyTrainerMessage] = msgspec.json.Decoder(wire.AnyTrainerMessage)
_Kind = TypeVar("_Kind", bound=wire.TrainerMessage)


def job_of(
    model: Path,
    dataset: wire.DatasetFile,
    folder: Path,
    strategy: wire.Strategy,
    provider: wire.Provider,
    parameters: dict[str, Any],
) -> wire.JobSpec:
    """A job of text generation. `parameters`: by their names in TrainingParameters."""
    return wire.JobSpec(
        job_id="train_000001",
        task="text-generation",
        strategy=strategy,
        provider=provider,
        model_name=model.name,
        model_path=str(model),
        dataset=dataset,
        parameters=msgspec.convert(parameters, wire.TrainingParameters),
        output_name="measured",
        output_dir=str(folder / "output"),
        checkpoint_dir=str(folder / "checkpoints"),
    )


class Attempt:
    """One training: `accelerate launch … -m trainer_entry.train FOLDER`, its stdout the wire."""

    def __init__(
        self,
        bench: Bench,
        name: str,
        dataset: wire.DatasetFile,
        *,
        strategy: wire.Strategy = "sft",
        provider: wire.Provider = "huggingface",
        resumes: Attempt | None = None,
        **parameters: Any,
    ) -> None:
        """`resumes`: the attempt whose newest whole checkpoint this one goes on from."""
        self.name = name
        self._bench = bench
        self._folder = bench.room(name)
        job_folder = resumes.job_folder if resumes is not None else self._folder
        self.job_folder: Path = job_folder
        given = {"seed": 7, **bench.precision, **parameters}
        job = job_of(bench.model, dataset, job_folder, strategy, provider, given)
        spec = wire.AttemptSpec(
            job=job,
            attempt=1 if resumes is None else 2,
            token="measured",  # noqa: S106 - it marks processes
            cpu_threads=bench.threads,
            resume_from=None if resumes is None else resumes.newest_checkpoint(),
        )
        (self._folder / "spec.json").write_bytes(msgspec.json.encode(spec))
        self._spool, self._log = self._folder / "stdout.jsonl", self._folder / "stderr.log"
        command = accelerate_command(spec, TRAINER, self._folder)
        self._process = bench.start(command, self._spool, self._log)

    def messages(self) -> list[wire.AnyTrainerMessage]:
        """What it said so far."""
        whole = self._spool.read_bytes().rpartition(b"\n")[0]
        return [_decoder.decode(line) for line in whole.splitlines()]

    def of_type(self, kind: type[_Kind]) -> list[_Kind]:
        """Its messages of a kind."""
        return [message for message in self.messages() if isinstance(message, kind)]

    def steps(self, phase: wire.Phase = "training") -> list[wire.StepLogged]:
        """The steps of a phase."""
        return [step for step in self.of_type(wire.StepLogged) if step.phase == phase]

    def losses(self) -> list[float]:
        """The loss of each step; a step without one is an error."""
        return [number(step.loss, f"{self.name}: the loss of step {step.step}") for step in self.steps()]

    def newest_checkpoint(self) -> str:
        """The last one that it reported."""
        written = self.of_type(wire.CheckpointWritten)
        if not written:
            raise Broken(f"{self.name} wrote no checkpoint")
        return written[-1].path

    def wait(self) -> Attempt:
        """Wait for its end.

        Raises:
            Broken: it did not finish; with the cause that it gave, or its last words.
        """
        code = self._bench.wait(self._process)
        if not self.of_type(wire.TrainerFinished):
            failed = self.of_type(wire.TrainerFailed)
            words = f"{failed[0].kind}: {failed[0].message}" if failed else last_words(self._log)
            raise Broken(f"{self.name} ended with {code}: {words}")
        return self

    def wait_for_failure(self) -> wire.TrainerFailed:
        """Wait for its end, which has to be a failure that it names itself.

        Raises:
            Broken: it ended in another way.
        """
        code = self._bench.wait(self._process)
        failed = self.of_type(wire.TrainerFailed)
        if not failed:
            raise Broken(f"{self.name} ended with {code} and named no failure: {last_words(self._log)}")
        return failed[0]

    def wait_until(self, condition: Callable[[Attempt], bool]) -> None:
        """Wait until something was said.

        Raises:
            Broken: it ended before.
        """
        for _ in self._bench.looks():
            if condition(self):
                return
            if self._process.poll() is not None:
                raise Broken(f"{self.name} ended too early: {last_words(self._log)}")

    def limit_memory(self, size: int) -> None:
        """Hold it, and what it starts from now on, to so many bytes of addresses."""
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, (size, size))

    def kill(self) -> None:
        """Signal 9, to launcher and trainer."""
        kill(self._process)


def launching(bench: Bench, name: str, dataset: wire.DatasetFile, **given: Any) -> Callable[[], Attempt]:
    """A training to be started, and waited for, when its turn comes."""
    return functools.partial(_launch, bench, name, dataset, given)


def _launch(bench: Bench, name: str, dataset: wire.DatasetFile, given: dict[str, Any]) -> Attempt:
    return Attempt(bench, name, dataset, **given).wait()


def number(value: float | None, what: str) -> float:
    """A figure that has to be there.

    Raises:
        Broken: it is not.
    """
    if value is None:
        raise Broken(f"{what} is no number")
    return value
