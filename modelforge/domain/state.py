"""What all decisions are made against: every job, dataset and model as the log has them."""

from collections import ChainMap
from collections.abc import MutableMapping
from typing import TypeVar, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain import dataset, job, model, needed_files
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.machine import Machine
from modelforge.domain.messages import Command, Event, Message, Record, Report
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire


class KeyUse(Struct, frozen=True, kw_only=True, gc=False):
    """The command that a key stands for: where it is recorded, and what was asked."""

    request_sha256: str
    position: int
    stream: str


class State(Struct, kw_only=True):
    """`running`: the jobs on the machine, in the order in which they got there. `waiting`: the queue, oldest first.

    `versions`: the streams' lengths. `needed`: how many need each file of the folder of datasets, by its name.
    """

    position: int = 0
    jobs: MutableMapping[str, job.Job] = {}
    datasets: MutableMapping[str, dataset.Dataset] = {}
    models: MutableMapping[int, model.Model] = {}
    keys: MutableMapping[str, KeyUse] = {}
    versions: MutableMapping[str, int] = {}
    needed: MutableMapping[str, int] = {}
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def known_files(self) -> set[str]:
        """The names of the files in the folder of datasets that somebody needs, or that are being removed."""
        needed = {file for file, times in self.needed.items() if times}
        return needed.union(*(known.removing for known in self.datasets.values()))

    def draft(self) -> "State":
        """A state that starts as this one and changes without changing it."""
        return State(
            position=self.position,
            jobs=ChainMap({}, self.jobs),
            datasets=ChainMap({}, self.datasets),
            models=ChainMap({}, self.models),
            keys=ChainMap({}, self.keys),
            versions=ChainMap({}, self.versions),
            needed=ChainMap({}, self.needed),
            running=self.running,
            waiting=self.waiting,
        )

    def adopt(self, draft: "State") -> None:
        """Become what a draft of this state became."""
        self.position, self.running, self.waiting = draft.position, draft.running, draft.waiting
        self.jobs.update(_changed(draft.jobs))
        self.datasets.update(_changed(draft.datasets))
        self.models.update(_changed(draft.models))
        self.keys.update(_changed(draft.keys))
        self.versions.update(_changed(draft.versions))
        self.needed.update(_changed(draft.needed))


def evolve(state: State, record: Record) -> None:
    """Take one record into the state, in place."""
    state.position = record.position
    state.versions[record.stream] = record.version
    match record.message:
        case (
            job.StartTraining(key=key)
            | job.StopTraining(key=key)
            | job.ResumeTraining(key=key)
            | job.CancelTraining(key=key)
            | job.SaveCheckpoint(key=key)
            | job.LaunchNext(key=key)
            | job.Relaunch(key=key)
            | dataset.RegisterDataset(key=key)
            | dataset.DeleteDataset(key=key)
            | model.DeleteModel(key=key)
        ):
            if key is not None:
                state.keys[key.value] = KeyUse(
                    request_sha256=key.request_sha256, position=record.position, stream=record.stream
                )
        case (
            dataset.DatasetUploaded()
            | dataset.DatasetDeleted()
            | dataset.DatasetFilesRemoved()
            | dataset.DatasetFilesKept() as event
        ):
            _evolve_dataset(state, event)
        case (
            model.ModelRegistered() | model.ModelDeleted() | model.ModelFilesRemoved() | model.ModelFilesKept() as event
        ):
            state.models[event.model_id] = model.evolve(state.models.get(event.model_id), event)
        case event:
            _evolve_job(state, event)


def _evolve_dataset(state: State, event: dataset.Event) -> None:
    before = state.datasets.get(event.filename)
    state.datasets[event.filename] = dataset.evolve(before, event)
    if isinstance(event, dataset.DatasetUploaded):
        needed_files.count(state.needed, event)
    elif isinstance(event, dataset.DatasetDeleted) and before is not None:
        needed_files.uncount(state.needed, before)


def _evolve_job(state: State, event: job.Event) -> None:
    if isinstance(event, job.TrainingRequested):
        needed_files.count(state.needed, event)
    job_id = event.job_id
    after = job.evolve(state.jobs.get(job_id), event)
    state.jobs[job_id] = after
    state.running, state.waiting = turns_after(event, after.status, state.running, state.waiting)


def turns_after(
    event: job.Event, status: str, running: tuple[str, ...], waiting: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who runs, and who waits, after a job's event that left it with `status`."""
    job_id = event.job_id
    if isinstance(event, job.TrainingRequested) and event.queued:
        return running, (*waiting, job_id)
    if isinstance(event, job.AttemptLaunching):
        return running if job_id in running else (*running, job_id), _without(waiting, job_id)
    if status in job.FINAL:
        return _without(running, job_id), _without(waiting, job_id)
    return running, waiting


def _without(job_ids: tuple[str, ...], job_id: str) -> tuple[str, ...]:
    return tuple(other for other in job_ids if other != job_id)


def check_key(state: State, key: IdempotencyKey | None) -> KeyUse | None:
    """The earlier use of a key, if it was used.

    Raises:
        Conflict: it was used for another request.
    """
    use = state.keys.get(key.value) if key is not None else None
    if key is not None and use is not None and use.request_sha256 != key.request_sha256:
        raise Conflict(
            "This Idempotency-Key was used for another request",
            f"It stands for the request recorded at position {use.position}; send this one with a new key.",
        )
    return use


def stamp(state: State, command: Command) -> Command:
    """The command with what only the writer knows: the new job's id, the job that runs now, the first of several.

    Raises:
        Conflict: the job that runs is to be stopped, and none does.
    """
    match command:
        case job.StartTraining():
            return job.stamp(command, job.job_id_at(state.position + 1))
        case job.StopTraining(job_id=""):
            if not state.running:
                raise Conflict("No training is active", "There is nothing to stop; GET /api/jobs lists the jobs.")
            return msgspec.structs.replace(command, job_id=state.running[0])
        case _:
            return command


def decide(state: State, message: Command | Report, machine: Machine) -> list[Event]:
    """The facts that a command or report leads to on a machine. A command was stamped before.

    Raises:
        NotFound, Conflict: the command cannot be carried out; a report always can.
    """
    match message:
        case job.StartTraining(spec=spec):
            _check_models(state, spec)
            needed_files.check_dataset(spec, state.needed)
            return [*job.decide_start(message, _lease(state, machine, spec), _active(state))]
        case job.StopTraining():
            return [*job.decide_stop(message, state.jobs.get(message.job_id))]
        case job.ResumeTraining():
            stopped = state.jobs.get(message.job_id)
            if stopped is not None and stopped.status in {"stopped", "failed"}:
                _check_models(state, stopped.spec)
                needed_files.check_dataset(stopped.spec, state.needed)
            gpus = None if stopped is None else _lease(state, machine, stopped.spec)
            return [*job.decide_resume(message, stopped, gpus, _active(state))]
        case job.CancelTraining():
            return [*job.decide_cancel(message, state.jobs.get(message.job_id))]
        case job.SaveCheckpoint():
            return [*job.decide_checkpoint(message, state.jobs.get(message.job_id))]
        case job.LaunchNext():
            return [*_launch_waiting(state, machine)]
        case job.Relaunch():
            again = state.jobs.get(message.job_id)
            return [*job.decide_relaunch(message, again, _lease_again(state, machine, again))]
        case job.ReportSpawned() | job.ReportLines() | job.ReportSilence():
            return [*job.decide_report(state.jobs.get(message.job_id), message)]
        case job.ReportGone():
            return _decide_gone(state, message, machine)
        case dataset.RegisterDataset():
            return [*dataset.decide(state.datasets.get(message.filename), message)]
        case dataset.DeleteDataset():
            return [*_decide_deletion(state, message)]
        case dataset.ReportDatasetFilesRemoved() | dataset.ReportDatasetFilesKept():
            return [*dataset.decide_report(state.datasets.get(message.filename), message)]
        case model.DeleteModel():
            trained = state.models.get(message.model_id)
            return [*model.decide(trained, message, used_by=_job_on_model(state, trained))]
        case model.ReportFilesRemoved() | model.ReportFilesKept():
            return [*model.decide_report(state.models.get(message.model_id), message)]
        case _:
            assert_never(message)


def _decide_deletion(state: State, command: dataset.DeleteDataset) -> list[dataset.Event]:
    known = state.datasets.get(command.filename)
    if known is None:
        return dataset.decide_deletion(None, command, used_by=None, files=())
    active = (state.jobs[job_id].spec for job_id in (*state.running, *state.waiting))
    used_by = needed_files.first_on(known, active)
    return dataset.decide_deletion(known, command, used_by, needed_files.only_of(known, state.needed))


def _lease(state: State, machine: Machine, spec: wire.JobSpec) -> tuple[str, ...] | None:
    """The GPUs for a job that comes now; None where it has to wait, be it only for those who came before."""
    if state.waiting:
        return None
    return machine.lease(spec, tuple(state.jobs[job_id].gpus for job_id in state.running))


def _lease_again(state: State, machine: Machine, again: job.Job | None) -> tuple[str, ...]:
    """The GPUs for the next attempt of a job that has its place: those that it had, if they are still to be had."""
    if again is None:
        return ()
    others = tuple(state.jobs[job_id].gpus for job_id in state.running if job_id != again.spec.job_id)
    free = machine.free_gpus(again.spec, others)
    if free is None or (len(again.gpus) == len(free) and set(again.gpus) <= set(machine.gpus)):
        return again.gpus
    return free


def _active(state: State) -> job.Job | None:
    """Who stands in the way of a job that comes now."""
    first = (*state.running, *state.waiting)[:1]
    return state.jobs[first[0]] if first else None


def _launch_waiting(state: State, machine: Machine) -> list[job.Event]:
    """The next attempts of those who have waited longest; nobody overtakes one who does not fit yet."""
    taken = [state.jobs[job_id].gpus for job_id in state.running]
    events: list[job.Event] = []
    for job_id in state.waiting:
        gpus = machine.lease(state.jobs[job_id].spec, tuple(taken))
        if gpus is None:
            break
        taken.append(gpus)
        events.append(job.launching(state.jobs[job_id], gpus))
    return events


def _check_models(state: State, spec: wire.JobSpec) -> None:
    """Refuse a trained model that was deleted after it was looked up."""
    for field, path in _models_of(spec):
        if any(trained.deleted and is_within(path, trained.path) for trained in state.models.values()):
            raise NotFound("No such model", f"{field}: {path} was deleted.")


def _models_of(spec: wire.JobSpec) -> tuple[tuple[str, str], ...]:
    """What a job loads or copies, each with the field that named it."""
    match spec.work:
        case None:
            rewards = () if spec.reward_model_path is None else (("reward_model", spec.reward_model_path),)
            return (("model_name", spec.model_path), *rewards)
        case wire.Merge(path=path):
            return (("base_model", spec.model_path), ("model_id", path))
        case wire.Export(path=path) | wire.Push(path=path):
            return (("model_id", path),)
        case _:
            assert_never(spec.work)


def _decide_gone(state: State, report: job.ReportGone, machine: Machine) -> list[Event]:
    trained = state.jobs.get(report.job_id)
    events: list[Event] = []
    for event in job.decide_report(trained, report, _lease_again(state, machine, trained)):
        events.append(event)
        if trained is not None and isinstance(event, job.TrainingCompleted) and event.model is not None:
            parameters = trained.parameters or trained.spec.parameters
            model_id = max(state.models, default=0) + 1
            events.append(model.register(trained.spec, parameters, event.model, model_id))
    return events


def _job_on_model(state: State, trained: model.Model | None) -> str | None:
    if trained is None:
        return None
    for job_id in (*state.running, *state.waiting):
        if any(is_within(path, trained.path) for _, path in _models_of(state.jobs[job_id].spec)):
            return job_id
    return None


def is_within(path: str, folder: str) -> bool:
    """Whether a resolved path is the folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def stream_of(message: Message) -> str:
    """The stream that a message stands in. `LaunchNext` is of no single job: it stands in `queue`."""
    match message:
        case job.StartTraining(spec=spec):
            return job.stream_of(spec.job_id)
        case job.LaunchNext():
            return "queue"
        case (
            dataset.RegisterDataset(filename=filename)
            | dataset.DatasetUploaded(filename=filename)
            | dataset.DeleteDataset(filename=filename)
            | dataset.DatasetDeleted(filename=filename)
            | dataset.DatasetFilesRemoved(filename=filename)
            | dataset.DatasetFilesKept(filename=filename)
        ):
            return dataset.stream_of(filename)
        case (
            model.DeleteModel(model_id=model_id)
            | model.ModelRegistered(model_id=model_id)
            | model.ModelDeleted(model_id=model_id)
            | model.ModelFilesRemoved(model_id=model_id)
            | model.ModelFilesKept(model_id=model_id)
        ):
            return model.stream_of(model_id)
        case _:
            return job.stream_of(message.job_id)


_K = TypeVar("_K")
_V = TypeVar("_V")


def _changed(mapping: MutableMapping[_K, _V]) -> MutableMapping[_K, _V]:
    return mapping.maps[0] if isinstance(mapping, ChainMap) else mapping
