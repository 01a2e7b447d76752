"""What trackers are told of a training, and what one that fails costs it: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.trainer_attempts import Attempt, child_environment, job_of

from modelforge.machine.hub_secrets import job_leaves_machine, remove_secrets, write_secrets
from trainer_entry import wire
from trainer_entry.runtime.stdout import LineWriter, Wire
from trainer_entry.trackers.lines import CloseRun, LogFigures, OpenRun, RunClosed
from trainer_entry.trackers.processes import Trackers
from trainer_entry.wire.secret_files import SECRET_FILES, TRACKERS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 6
KEY = "0123456789abcdef0123456789abcdef01234567"
# Programs in the place of trackers: one that cannot be used, one that raises amid a training, one that hangs.
WANDB = """
import os
raise RuntimeError("no use of " + os.environ["WANDB_API_KEY"])
"""
MLFLOW = """
import os
from pathlib import Path
told = []
class Metric:
    def __init__(self, *values): self.values = values
Param = Metric
class MlflowClient:
    def __init__(self, tracking_uri): print("printed by a tracker", flush=True)
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name): return "1"
    def create_run(self, where, **words):
        class run: info = type("info", (), {"run_id": "run"})
        return run
    def log_batch(self, run_id, metrics=(), params=()):
        told.append(metrics)
        if len(told) == 5: raise ConnectionError("the server is gone")
"""
TRACKIO = """
import os, time
from pathlib import Path
Path(os.environ["TRACKIO_DIR"], "seen").write_bytes(Path("/proc/self/environ").read_bytes())
time.sleep(1e6)
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-ins")
    (folder / "wandb.py").write_text(WANDB)
    (folder / "trackio.py").write_text(TRACKIO)
    (folder / "mlflow").mkdir()
    for name in ("__init__", "entities", "tracking"):
        (folder / "mlflow" / f"{name}.py").write_text(MLFLOW)
    return folder


def environment_of(stand_ins: Path, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trackers.json").write_text(json.dumps({"wandb": {"WANDB_API_KEY": KEY}}))
    search = os.pathsep.join([str(stand_ins), str(Path(wire.__file__).parents[2])])
    return {"PYTHONPATH": search, TRACKERS_VARIABLE: str(folder / "trackers.json")}


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, dataset: wire.DatasetFile, stand_ins: Path
) -> Attempt:
    """A training that is told to TensorBoard and to three trackers that cannot be told."""
    folder = tmp_path_factory.mktemp("tracked")
    attempt = Attempt(
        folder,
        tiny_model,
        dataset,
        environment=environment_of(stand_ins, folder),
        grace_seconds=4,
        max_steps=STEPS,
        eval_split=0.1,
        eval_steps=3,
        save_steps=4,
        report_to=["tensorboard", "wandb", "mlflow", "trackio"],
    )
    assert attempt.wait() == 0, attempt.stderr()
    return attempt


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder of event files."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(told.step, told.value) for told in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def told_by_the_job(*attempts: Attempt) -> dict[str, list[tuple[int, Any]]]:
    """The figures of all messages, by name, each step once: that of the last attempt that made it."""
    by_step: dict[str, dict[int, float]] = {}
    for attempt in attempts:
        for message in attempt.messages():
            if isinstance(message, wire.StepLogged | wire.Evaluated):
                for name, figure in LogFigures.of(message).figures.items():
                    by_step.setdefault(name, {})[message.step] = figure
    return {
        name: [(step, pytest.approx(figure, rel=1e-6)) for step, figure in sorted(figures.items())]
        for name, figures in by_step.items()
    }


@pytest.mark.training
def test_tensorboard_has_every_figure_of_the_job_at_its_step(tracked: Attempt) -> None:
    shown = curves(tracked.folder / "trackers" / "tensorboard")
    assert shown == told_by_the_job(tracked)
    assert [step for step, _ in shown["loss"]] == list(range(1, STEPS + 1))
    assert [step for step, _ in shown["eval_loss"]] == [0, 3, 6]
    assert {"learning_rate", "grad_norm", "memory_mb"} <= shown.keys()


@pytest.mark.training
def test_trackers_that_fail_cost_the_training_nothing_and_are_named(tracked: Attempt) -> None:
    assert tracked.one(wire.TrainerFinished).step == STEPS
    assert (tracked.output / "adapter_model.safetensors").exists()
    failed = {message.tracker: message.message for message in tracked.of_type(wire.TrackerFailed)}
    assert failed == {
        "wandb": "RuntimeError: no use of [redacted]",
        "mlflow": "ConnectionError: the server is gone",
        "trackio": "It was not done 2 s after the training.",
    }
    assert isinstance(tracked.messages()[-1], wire.TrainerFinished)
    for name in failed:
        assert f"{name} is told nothing more" in tracked.stderr()


@pytest.mark.training
def test_what_a_tracker_prints_reaches_the_log_and_not_the_wire(tracked: Attempt) -> None:
    assert "printed by a tracker" in tracked.stderr()  # each line of the wire was decoded already


@pytest.mark.training
def test_the_key_of_a_tracker_stands_in_no_message_no_log_and_no_environment(tracked: Attempt) -> None:
    handed = tracked.folder / "trackers.json"
    files = [path for path in tracked.folder.rglob("*") if path.is_file() and path != handed]
    seen = tracked.folder / "trackers" / "trackio" / "seen"
    assert {tracked.folder / "stdout.jsonl", tracked.folder / "stderr.log", seen} <= set(files)
    assert all(KEY.encode() not in path.read_bytes() for path in files)


@pytest.mark.training
def test_a_resumed_attempt_goes_on_with_the_same_run(
    tracked: Attempt, tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    checkpoint = next(saved for saved in tracked.of_type(wire.CheckpointWritten) if saved.step == 4)
    resumed = Attempt(
        tmp_path,
        tiny_model,
        dataset,
        resume_from=checkpoint.path,
        checkpoint_dir=tracked.folder / "checkpoints",
        max_steps=STEPS,
        eval_split=0.1,
        eval_steps=3,
        save_steps=4,
        report_to="tensorboard",
    )
    assert resumed.wait() == 0, resumed.stderr()
    assert resumed.of_type(wire.TrackerFailed) == []
    shown = curves(tracked.folder / "trackers" / "tensorboard")
    assert [step for step, _ in shown["loss"]] == list(range(1, STEPS + 1))
    expected = told_by_the_job(tracked, resumed)
    assert {name: shown[name] for name in ("loss", "learning_rate", "eval_loss", "epoch")} == {
        name: expected[name] for name in ("loss", "learning_rate", "eval_loss", "epoch")
    }


# ---- the processes, without a training ----


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[tuple[Wire, Path]]:
    path = tmp_path / "spool"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    yield Wire(LineWriter(descriptor), speaks=True), path
    os.close(descriptor)


def failures(path: Path) -> list[wire.TrackerFailed]:
    decoded = [msgspec.json.decode(line, type=wire.AnyTrainerMessage) for line in path.read_bytes().splitlines()]
    return [message for message in decoded if isinstance(message, wire.TrackerFailed)]


def started() -> wire.TrainerStarted:
    return wire.TrainerStarted(
        attempt=1,
        seq=1,
        parameters=wire.TrainingParameters(learning_rate=1e-3),
        trainer_arguments={},
        environment=wire.Environment(python="", platform="", device="cpu", versions={}),
        total_steps=3,
        total_epochs=1,
        train_examples=1,
        eval_examples=0,
        trainable_parameters=1,
        all_parameters=1,
        dataset_sha256="3f" * 32,
        base_revision=None,
        chat_template=False,
    )


def spec(folder: Path, *trackers: wire.Tracker, grace_seconds: float = 0.0) -> wire.AttemptSpec:
    parameters = wire.TrainingParameters(report_to=trackers)
    job = job_of(parameters, checkpoint_dir=str(folder / "checkpoints"), grace_seconds=grace_seconds)
    return wire.AttemptSpec(job=job, attempt=1, token="", cpu_threads=1)


def step(number: int) -> wire.StepLogged:
    return wire.StepLogged(
        attempt=1, seq=1, step=number, total_steps=3, epoch=0.5, elapsed_seconds=1.0, loss=1 / number, rewards={"a": 1}
    )


def test_a_tracker_that_reads_nothing_is_given_up_and_telling_it_never_waits(
    spool: tuple[Wire, Path], tmp_path: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, path = spool
    monkeypatch.setenv("PYTHONPATH", environment_of(stand_ins, tmp_path)["PYTHONPATH"])
    with Trackers(spec(tmp_path, "trackio"), told):
        told.send(lambda _: started())
        for number in range(1, 4000):
            told.send(lambda _, number=number: step(number))
        while not failures(path):
            time.sleep(0.01)
    assert [(message.tracker, message.message) for message in failures(path)] == [
        ("trackio", "It is too slow: 1000 reports wait for it.")
    ]


def test_a_process_that_is_killed_is_reported_as_such(
    spool: tuple[Wire, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setenv("PYTHONPATH", environment_of(tmp_path, tmp_path)["PYTHONPATH"])
    told, path = spool
    with Trackers(spec(tmp_path, "trackio", grace_seconds=60), told):
        pass
    assert [message.message for message in failures(path)] == ["Its process ended with -9."]


def report(tracker: wire.Tracker, folder: Path, first: int) -> None:
    """Tell a tracker's own library some steps, as a trainer does."""
    opening = OpenRun.of(spec(folder), msgspec.structs.replace(started(), resumed_step=first - 1))
    lines: list[Any] = [opening, *(LogFigures.of(step(number)) for number in (first, first + 1))]
    told = b"".join(msgspec.json.encode(line) + b"\n" for line in [*lines, CloseRun(outcome="finished")])
    done = subprocess.run(
        [sys.executable, "-m", "trainer_entry.report", tracker, str(folder)],
        input=told,
        capture_output=True,
        env=child_environment(),
        check=False,
    )
    assert done.stdout == msgspec.json.encode(RunClosed()) + b"\n", done.stderr.decode()


@pytest.mark.filterwarnings("ignore")  # of its own libraries
def test_mlflow_has_one_run_of_two_attempts(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    report("mlflow", tmp_path, 1)
    report("mlflow", tmp_path, 3)
    database = tmp_path / "mlflow.db"
    client = mlflow.MlflowClient(f"sqlite:///{database}" if database.exists() else (tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("modelforge").experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "my-tiny-finetuned-train_000001")
    assert (run.data.params["learning_rate"], run.data.tags["strategy"]) == ("0.001", "sft")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(told.step, told.value) for told in history] == [(number, 1 / number) for number in range(1, 5)]


def test_trackio_has_one_run_of_two_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    report("trackio", tmp_path, 1)
    report("trackio", tmp_path, 3)
    (run,) = trackio.Api().runs("modelforge")
    assert run.name == "my-tiny-finetuned-train_000001"
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    told = storage.get_logs("modelforge", run.name, run_id=run.id)
    assert [(row["step"], row["loss"]) for row in told] == [(number, 1 / number) for number in range(1, 5)]


def test_wandb_keeps_a_run_on_this_machine_where_there_is_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    report("wandb", tmp_path, 1)
    report("wandb", tmp_path, 3)
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2
    assert len({path.parent.name.partition("train_")[2] for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}) == 1


def test_a_run_s_config_has_every_parameter_and_what_it_was_trained_on() -> None:
    opening = OpenRun.of(spec(Path("/")), started())
    assert opening.config.keys() >= set(wire.TrainingParameters.__struct_fields__)
    assert (opening.config["job_id"], opening.config["dataset_sha256"]) == ("train_000001", "3f" * 32)
    asked = msgspec.structs.replace(
        opening.parameters,
        report_to="wandb",
        tracker_project="desk",
        tracker_run="third",
        tracker_tags=("night", "sft"),
    )
    named = msgspec.structs.replace(opening, parameters=asked)
    assert (named.name, named.tags) == ("third", (*opening.tags, "night"))
    assert opening.name == "my-tiny-finetuned-train_000001"
    assert LogFigures.of(step(2)).figures == {"epoch": 0.5, "loss": 0.5, "elapsed_seconds": 1.0, "rewards/a": 1.0}


# ---- what of the server's environment they are given ----


def test_a_tracker_is_given_its_variables_by_a_file_and_only_for_a_job_that_reports_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:word@mlflow.example")
    local = {"model_path": "/models/tiny"}
    for named, given in (
        ("none", None),
        ("tensorboard", None),
        (("wandb", "trackio"), {"wandb": {"WANDB_API_KEY": KEY}, "trackio": {}}),
        ("mlflow", {"mlflow": {"MLFLOW_TRACKING_URI": "https://me:word@mlflow.example"}}),
    ):
        job = job_of(msgspec.convert({"report_to": named}, wire.TrainingParameters), **local)
        variables = write_secrets(tmp_path, job)
        file = tmp_path / SECRET_FILES[2]
        assert variables == ({} if given is None else {TRACKERS_VARIABLE: str(file)})
        assert job_leaves_machine(job) == (given is not None)
        if given is not None:
            assert json.loads(file.read_bytes()) == given
            assert file.stat().st_mode & 0o777 == 0o600
        remove_secrets(tmp_path)
        assert not file.exists()
