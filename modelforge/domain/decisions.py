"""What a command or report leads to, at a place, in a state: the events, or the reason why there are none."""

from collections.abc import Iterator
from typing import assert_never

import msgspec

from modelforge.domain import access_token, dataset, job, model, references, webhook
from modelforge.domain.messages import Command, Event, Report
from modelforge.domain.scheduling import Machine, Place, machine_for, server_of
from modelforge.domain.state import State
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire


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
            started = (job_id for job_id in state.running if state.jobs[job_id].status != "queued")
            return msgspec.structs.replace(command, job_id=next(started, state.running[0]))
        case _:
            return command


def decide(state: State, message: Command | Report, place: Place) -> list[Event]:
    """The facts that a command or report leads to, where jobs run at a place. A command was stamped before.

    Raises:
        NotFound, Conflict: the command cannot be carried out; a report always can.
    """
    match message:
        case job.ReportLines() | job.ReportSubmitted() | job.ReportWaits() | job.ReportSpawned() | job.ReportSilence():
            return [*job.decide_report(state.jobs.get(message.job_id), message)]
        case job.StartTraining(spec=spec):
            _check_models(state, spec)
            references.check_dataset(spec, state.references)
            return [*job.decide_start(message, _lease(state, place, spec), _active(state))]
        case job.StopTraining():
            return [*job.decide_stop(message, state.jobs.get(message.job_id))]
        case job.ResumeTraining():
            stopped = state.jobs.get(message.job_id)
            if stopped is not None and stopped.status in {"stopped", "failed"}:
                _check_models(state, stopped.spec)
                references.check_dataset(stopped.spec, state.references)
            gpus = None if stopped is None else _lease(state, place, stopped.spec)
            return [*job.decide_resume(message, stopped, gpus, _active(state))]
        case job.CancelTraining():
            return [*job.decide_cancel(message, state.jobs.get(message.job_id))]
        case job.SaveCheckpoint():
            return [*job.decide_checkpoint(message, state.jobs.get(message.job_id))]
        case job.LaunchNext():
            return [*_launch_waiting(state, place)]
        case job.Relaunch():
            again = state.jobs.get(message.job_id)
            return [*job.decide_relaunch(message, again, _lease_again(state, place, again))]
        case job.ReportGone():
            return _decide_gone(state, message, place)
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
        case access_token.CreateToken() | access_token.RevokeToken():
            return [*access_token.decide(state.tokens.get(message.name), message)]
        case (
            webhook.CreateWebhook() | webhook.UpdateWebhook() | webhook.RotateWebhookSecret() | webhook.DeleteWebhook()
        ):
            others = sum(not known.deleted for known in state.webhooks.values())
            return [*webhook.decide(state.webhooks.get(message.webhook_id), message, others)]
        case webhook.ReportDelivery():
            return [*webhook.decide_report(state.webhooks.get(message.webhook_id), message)]
        case _:
            assert_never(message)


def _decide_deletion(state: State, command: dataset.DeleteDataset) -> list[dataset.Event]:
    known = state.datasets.get(command.filename)
    if known is None:
        return dataset.decide_deletion(None, command, used_by=None, files=())
    active = (state.jobs[job_id].spec for job_id in (*state.running, *state.waiting))
    used_by = references.first_job_on(known, active)
    return dataset.decide_deletion(known, command, used_by, references.unshared_files(known, state.references))


def _lease(state: State, place: Place, spec: wire.JobSpec) -> tuple[str, ...] | None:
    """The GPUs for a job that comes now; None where it has to wait, be it only for those who came before."""
    machine = machine_for(place, spec)
    if machine is None:
        return ()
    if any(machine_for(place, state.jobs[job_id].spec) is machine for job_id in state.waiting):
        return None
    return machine.lease(spec, _leases(state, place, machine))


def _leases(state: State, place: Place, machine: Machine) -> tuple[tuple[str, ...], ...]:
    """The GPUs of each job that runs on a machine of the place."""
    running = (state.jobs[job_id] for job_id in state.running)
    return tuple(other.gpus for other in running if machine_for(place, other.spec) is machine)


def _lease_again(state: State, place: Place, again: job.Job | None) -> tuple[str, ...]:
    """The GPUs for the next attempt of a job that has its place: those that it had, if they are still to be had."""
    machine = None if again is None else machine_for(place, again.spec)
    if again is None or machine is None:
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


def _launch_waiting(state: State, place: Place) -> list[job.Event]:
    """The next attempts of those who have waited longest; nobody overtakes one who does not fit yet."""
    taken = [*_leases(state, place, server_of(place))]
    events: list[job.Event] = []
    is_full = False
    for job_id in state.waiting:
        following = state.jobs[job_id]
        machine = machine_for(place, following.spec)
        gpus: tuple[str, ...] | None = ()
        if machine is not None:
            gpus = None if is_full else machine.lease(following.spec, tuple(taken))
            if gpus is None and machine is place:
                break
            is_full = gpus is None
            taken.append(gpus or ())
        if gpus is not None:
            events.append(job.launching(following, gpus))
    return events


def _check_models(state: State, spec: wire.JobSpec) -> None:
    """Refuse a trained model that was deleted after it was looked up."""
    for field, path in _models_of(spec):
        if any(folder in state.deleted_models for folder in _folders_around(path)):
            raise NotFound("No such model", f"{field}: {path} was deleted.")


def _models_of(spec: wire.JobSpec) -> tuple[tuple[str, str], ...]:
    """What a job loads or copies, each with the field that named it."""
    match spec.work:
        case None:
            rewards = () if spec.reward_model_path is None else (("reward_model", spec.reward_model_path),)
            adapters = () if spec.adapter is None else (("model_name", spec.adapter.path),)
            return (("model_name", spec.model_path), *adapters, *rewards)
        case wire.Merge(path=path) | wire.Export(path=path, merges=True):
            return (("base_model", spec.model_path), ("model_id", path))
        case wire.Evaluate(path=path, adapts=adapts, base_model=base):
            bases = (("base_model", spec.model_path),) if adapts or base else ()
            return (*bases, ("model_id", path))
        case wire.Export(path=path) | wire.Push(path=path):
            return (("model_id", path),)
        case _:
            assert_never(spec.work)


def _decide_gone(state: State, report: job.ReportGone, place: Place) -> list[Event]:
    trained = state.jobs.get(report.job_id)
    events: list[Event] = []
    for event in job.decide_report(trained, report, _lease_again(state, place, trained)):
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


def _folders_around(path: str) -> Iterator[str]:
    """A resolved path, and each folder that it lies in."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def is_within(path: str, folder: str) -> bool:
    """Whether a resolved path is the folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
