"""A trained model. Its commands, events, state, evolve and decide, in this order."""

from typing import assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire


class DeleteModel(Struct, frozen=True, kw_only=True, tag_field="type", tag="DeleteModel", gc=False):
    """Take a model out of the list and its files off the disk."""

    model_id: int
    key: IdempotencyKey | None = None


Command = DeleteModel


class ModelRegistered(Struct, frozen=True, kw_only=True, tag_field="type", tag="ModelRegistered", gc=False):
    """A job's result is a model that can be used. `spec` and `parameters` (in effect) say what made it."""

    model_id: int
    name: str
    spec: wire.JobSpec
    parameters: wire.TrainingParameters
    model: wire.SavedModel


class ModelDeleted(Struct, frozen=True, kw_only=True, tag_field="type", tag="ModelDeleted", gc=False):
    """The model is gone from the list; its files go next, also after a crash."""

    model_id: int
    path: str


class ModelFilesRemoved(Struct, frozen=True, kw_only=True, tag_field="type", tag="ModelFilesRemoved", gc=False):
    """The deleted model's files are off the disk."""

    model_id: int


class ReportFilesRemoved(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportFilesRemoved", gc=False):
    """The reactor's word that a deleted model's files are gone."""

    model_id: int


Report = ReportFilesRemoved
Event = ModelRegistered | ModelDeleted | ModelFilesRemoved


class Model(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a model."""

    model_id: int
    path: str
    deleted: bool = False
    files_removed: bool = False


def evolve(model: Model | None, event: Event) -> Model:
    """The model after `event`."""
    if isinstance(event, ModelRegistered):
        return Model(model_id=event.model_id, path=event.model.path)
    if model is None:
        raise ValueError(f"{type(event).__name__} of a model that was never registered: {event.model_id}")
    match event:
        case ModelDeleted():
            return msgspec.structs.replace(model, deleted=True)
        case ModelFilesRemoved():
            return msgspec.structs.replace(model, files_removed=True)
        case _:
            assert_never(event)


def register(spec: wire.JobSpec, parameters: wire.TrainingParameters, model: wire.SavedModel, model_id: int) -> Event:
    """The model that a completed job leaves."""
    return ModelRegistered(model_id=model_id, name=spec.output_name, spec=spec, parameters=parameters, model=model)


def decide(model: Model | None, command: Command, used_by: str | None) -> list[Event]:
    """Delete. `used_by`: the active job that trains on this model, if any.

    Raises:
        NotFound: there is no such model, or no longer.
        Conflict: an active job uses it.
    """
    if model is None or model.deleted:
        raise NotFound("No such model", f"There is no model {command.model_id}; GET /api/models lists them.")
    if used_by is not None:
        raise Conflict(
            "The model is in use",
            f"Job {used_by} trains on model {command.model_id}; stop it or wait for its end.",
        )
    return [ModelDeleted(model_id=command.model_id, path=model.path)]


def decide_report(model: Model | None, report: Report) -> list[Event]:
    """The files of a deleted model are gone, once."""
    if model is None or not model.deleted or model.files_removed:
        return []
    return [ModelFilesRemoved(model_id=report.model_id)]


def stream_of(model_id: int) -> str:
    """The stream of a model."""
    return f"model:{model_id}"
