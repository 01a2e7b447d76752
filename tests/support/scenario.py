"""Given, when, then, in the words of the domain: messages with sensible content, and what follows from them."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw

from modelforge.domain import dataset, job, model
from modelforge.domain.decisions import decide
from modelforge.domain.failure_causes import Cause
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.messages import (
    GENESIS,
    Actor,
    Command,
    Event,
    Kind,
    Message,
    Record,
    Report,
    digest_of,
    encode,
    first_digest_of,
    stream_of,
    tag_of,
)
from modelforge.domain.scheduling import Machine, Place
from modelforge.domain.state import State, evolve
from trainer_entry import wire

ONE_SLOT = Machine()
JOB = "train_000001"
OTHER_JOB = "train_000004"
NOON = 1_750_000_000_000_000
"""A fixed moment in unix microseconds: 2025-06-15T15:06:40Z."""
SHA256 = "3f" * 32
PARAMETERS = wire.TrainingParameters(num_train_epochs=3.0, per_device_train_batch_size=2)
IN_EFFECT = wire.TrainingParameters(num_train_epochs=3.0, per_device_train_batch_size=2, learning_rate=2e-4, bf16=True)
ENVIRONMENT = wire.Environment(python="3.11.7", platform="Linux", device="cpu", versions={"torch": "2.10.0"})
DATASET = wire.DatasetFile(
    filename="three_lines.jsonl", path="/data/three_lines.jsonl", sha256=SHA256, format="input_output", num_examples=150
)
PROCESS = job.LocalProcess(pid=4711, start_time=123_456, boot_id="0e8f", token="c0ffee")  # noqa: S106 - no secret
SLURM_JOB = job.SlurmJob(slurm_id=42, cluster="lab", name=f"mf-desk-{JOB}-1")
SAVED = wire.SavedModel(
    path=f"/data/models/{JOB}", kind="adapter", size_bytes=1_500_000, metrics={"final_loss": 0.5, "eval_loss": 1.0}
)


def spec(
    job_id: str = JOB, *, model_path: str = "/models/base", max_restarts: int = 0, num_processes: int = 1
) -> wire.JobSpec:
    """A job as it stands in the log."""
    return wire.JobSpec(
        job_id=job_id,
        task="text-generation",
        strategy="sft",
        provider="huggingface",
        model_name="base",
        model_path=model_path,
        dataset=DATASET,
        parameters=msgspec.structs.replace(PARAMETERS, num_processes=num_processes),
        max_restarts=max_restarts,
        output_name="my-base-finetuned",
        output_dir=f"/data/models/{job_id}",
        checkpoint_dir=f"/data/jobs/{job_id}/checkpoints",
    )


def key(value: str = "monday", request: str = "one") -> IdempotencyKey:
    """A client's key for a request."""
    return IdempotencyKey(value=value, request_sha256=request)


def start(
    job_id: str = JOB,
    *,
    queue: bool = False,
    key: IdempotencyKey | None = None,
    model_path: str = "/models/base",
    max_restarts: int = 0,
    num_processes: int = 1,
) -> job.StartTraining:
    """The command to train."""
    asked = spec(job_id, model_path=model_path, max_restarts=max_restarts, num_processes=num_processes)
    return job.StartTraining(spec=asked, queue=queue, key=key)


def started(seq: int = 1, *, attempt: int = 1, total_steps: int = 225, resumed_step: int = 0) -> wire.TrainerStarted:
    """The trainer's word that training begins."""
    return wire.TrainerStarted(
        attempt=attempt,
        seq=seq,
        parameters=IN_EFFECT,
        trainer_arguments={"seed": 42, "target_modules": ["q_proj"]},
        environment=ENVIRONMENT,
        total_steps=total_steps,
        total_epochs=3,
        train_examples=150,
        eval_examples=0,
        trainable_parameters=1_000,
        all_parameters=135_000_000,
        dataset_sha256=SHA256,
        base_revision=None,
        chat_template=True,
        resumed_step=resumed_step,
    )


def step(
    seq: int,
    number: int | None = None,
    *,
    attempt: int = 1,
    epoch: float = 0.1,
    total_steps: int = 225,
    loss: float | None = 2.5,
) -> wire.StepLogged:
    """Figures after one optimizer step."""
    return wire.StepLogged(
        attempt=attempt,
        seq=seq,
        step=seq if number is None else number,
        total_steps=total_steps,
        epoch=epoch,
        elapsed_seconds=1.5,
        eta_seconds=60.0,
        loss=loss,
        learning_rate=1e-4,
    )


def checkpoint(seq: int, *, attempt: int = 1) -> wire.CheckpointWritten:
    """The trainer's word that a checkpoint is on the disk."""
    return wire.CheckpointWritten(attempt=attempt, seq=seq, step=seq, path=f"/data/checkpoint-{seq}")


def finished(seq: int, *, attempt: int = 1) -> wire.TrainerFinished:
    """The trainer's last word after success."""
    return wire.TrainerFinished(attempt=attempt, seq=seq, step=225, messages=seq, model=SAVED)


def stopped(seq: int, *, attempt: int = 1, checkpoint: str | None = "/data/checkpoint-7") -> wire.TrainerStopped:
    """The trainer's last word after a stop."""
    return wire.TrainerStopped(attempt=attempt, seq=seq, step=7, messages=seq, checkpoint=checkpoint)


def failed(seq: int, *, attempt: int = 1) -> wire.TrainerFailed:
    """The trainer's last word after an exception."""
    return wire.TrainerFailed(
        attempt=attempt, seq=seq, kind="OutOfMemory", message="8 GiB asked for", traceback="File …", messages=seq
    )


def bad_line(offset: int = 0, length: int = 10) -> job.QuarantinedLine:
    """A line on the wire that is no message."""
    return job.QuarantinedLine(offset=offset, length=length, sha256=SHA256, reason="JSON is malformed")


def lines(
    offset: int,
    *messages: wire.AnyTrainerMessage,
    quarantined: tuple[job.QuarantinedLine, ...] = (),
    job_id: str = JOB,
    attempt: int = 1,
) -> job.ReportLines:
    """What one read of a spool gave."""
    return job.ReportLines(job_id=job_id, attempt=attempt, offset=offset, messages=messages, quarantined=quarantined)


def spawned(job_id: str = JOB, *, attempt: int = 1) -> job.ReportSubmitted:
    """The supervisor's word that an attempt's processes are there, on the server's machine."""
    return job.ReportSubmitted(job_id=job_id, attempt=attempt, reference=PROCESS)


def submitted(job_id: str = JOB, *, attempt: int = 1) -> job.ReportSubmitted:
    """The supervisor's word that a cluster has an attempt."""
    return job.ReportSubmitted(job_id=job_id, attempt=attempt, reference=SLURM_JOB)


def exit_report(*, code: int | None = 0, signal: int | None = None, oom_kills: int = 0) -> wire.ExitReport:
    """How the launcher ended."""
    return wire.ExitReport(
        code=code,
        signal=signal,
        stop_signalled=False,
        killed_after_grace=False,
        max_rss_kib=400_000,
        user_seconds=9.5,
        system_seconds=0.5,
        oom_kills=oom_kills,
    )


EXITED = exit_report()


def gone(
    job_id: str = JOB,
    *,
    attempt: int = 1,
    exit_report: wire.ExitReport | None = EXITED,
    last_words: str = "",
    cause: Cause | None = None,
    checkpoint: str | None = None,
) -> job.ReportGone:
    """The supervisor's word that no process of an attempt is left."""
    return job.ReportGone(
        job_id=job_id,
        attempt=attempt,
        exit=exit_report,
        last_words=last_words,
        cause=cause,
        checkpoint=checkpoint,
    )


def requested(
    job_id: str = JOB,
    *,
    queued: bool = False,
    model_path: str = "/models/base",
    max_restarts: int = 0,
    num_processes: int = 1,
) -> job.TrainingRequested:
    """A job exists."""
    asked = spec(job_id, model_path=model_path, max_restarts=max_restarts, num_processes=num_processes)
    return job.TrainingRequested(job_id=job_id, spec=asked, queued=queued)


def launching(
    job_id: str = JOB, *, attempt: int = 1, resume_from: str | None = None, gpus: tuple[str, ...] = ()
) -> job.AttemptLaunching:
    """An attempt is about to be spawned."""
    return job.AttemptLaunching(job_id=job_id, attempt=attempt, resume_from=resume_from, gpus=gpus)


def attempt_spawned(job_id: str = JOB, *, attempt: int = 1) -> job.AttemptSpawned:
    """The attempt's processes are there."""
    return job.AttemptSpawned(job_id=job_id, attempt=attempt, reference=PROCESS)


def attempt_submitted(job_id: str = JOB, *, attempt: int = 1) -> job.AttemptSubmitted:
    """A cluster has the attempt."""
    return job.AttemptSubmitted(job_id=job_id, attempt=attempt, reference=SLURM_JOB)


def training_started(*, seq: int = 1, offset: int = 100) -> job.TrainingStarted:
    """Training began."""
    return job.TrainingStarted(job_id=JOB, attempt=1, seq=seq, offset=offset, report=started(seq))


def logged(*steps: wire.StepLogged, offset: int = 200) -> job.MetricsLogged:
    """Figures of optimizer steps."""
    return job.MetricsLogged(job_id=JOB, attempt=1, seq=steps[-1].seq, offset=offset, steps=steps)


def ended(report: job.LastWord, *, offset: int = 300) -> job.TrainerEnded:
    """The trainer's last word."""
    return job.TrainerEnded(job_id=JOB, attempt=1, seq=report.seq, offset=offset, report=report)


def registered(model_id: int = 1, job_id: str = JOB) -> model.ModelRegistered:
    """A job's result is a model."""
    return model.ModelRegistered(
        model_id=model_id, name="my-base-finetuned", spec=spec(job_id), parameters=IN_EFFECT, model=SAVED
    )


def register_dataset(sha256: str = SHA256, *, filename: str = "three_lines.jsonl") -> dataset.RegisterDataset:
    """The command to take a checked file into the list."""
    return dataset.RegisterDataset(
        filename=filename, sha256=sha256, format="input_output", num_examples=150, size_bytes=45_678
    )


def uploaded(revision: int = 1, sha256: str = SHA256) -> dataset.DatasetUploaded:
    """A dataset is there."""
    return dataset.DatasetUploaded(
        filename="three_lines.jsonl",
        revision=revision,
        sha256=sha256,
        format="input_output",
        num_examples=150,
        size_bytes=45_678,
    )


def records_of(*messages: Message, actor: Actor = "api", at: int = NOON, second_from: int = 1) -> list[Record]:
    """The messages as the first records of a log; the versions, positions and digests are right.

    `second_from`: the position from which on the digests are of the second version.
    """
    records: list[Record] = []
    versions: dict[str, int] = {}
    digest = GENESIS
    for position, message in enumerate(messages, start=1):
        stream, tag, data = stream_of(message), tag_of(message), encode(message)
        versions[stream] = version = versions.get(stream, 0) + 1
        kind: Kind = "command" if isinstance(message, Command) else "event"
        digest = (digest_of if position >= second_from else first_digest_of)(
            digest, position, stream, version, kind, tag, at, None, actor, data
        )
        records.append(
            Record(
                position=position,
                stream=stream,
                version=version,
                kind=kind,
                type=tag,
                at=at,
                cause=None,
                actor=actor,
                data=Raw(data),
                digest=digest,
                message=message,
            )
        )
    return records


def given(*past: Message, machine: Place = ONE_SLOT) -> "Given":
    """What has happened, on a machine."""
    state = State()
    for record in records_of(*past):
        evolve(state, record)
    return Given(state, machine)


class Given:
    """A past on a machine; `when` something comes, `then` these facts follow."""

    def __init__(self, state: State, machine: Place) -> None:
        self.state = state
        self.machine = machine

    def when(self, message: Command | Report) -> "Then":
        """Something is asked or reported."""
        return Then(lambda: decide(self.state, message, self.machine))


class Then:
    """What follows."""

    def __init__(self, decision: Callable[[], Sequence[Event]]) -> None:
        self._decision = decision

    @property
    def events(self) -> list[Event]:
        """The facts that follow."""
        return list(self._decision())

    def then(self, *expected: Event) -> None:
        """Exactly these facts follow."""
        assert self.events == list(expected)

    def then_refused(self, kind: type[Exception], words: str) -> None:
        """It is refused, and the answer has these words in it."""
        try:
            events = self.events
        except kind as refusal:
            assert words in str(refusal)  # noqa: PT017 - the words of the refusal
        else:
            raise AssertionError(f"not refused: {events}")
