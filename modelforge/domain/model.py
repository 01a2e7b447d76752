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


class ModelFilesKept(Struct, frozen=True, kw_only=True, tag_field="type", tag="ModelFilesKept", gc=False):
    """The deleted model's files could not be removed, and why; the next start tries again."""

    model_id: int
    reason: str


class ReportFilesRemoved(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportFilesRemoved", gc=False):
    """The reactor's word that a deleted model's files are gone."""

    model_id: int


class ReportFilesKept(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportFilesKept", gc=False):
    """The reactor's word that a deleted model's files could not be removed, and why."""

    model_id: int
    reason: str


Report = ReportFilesRemoved | ReportFilesKept
Event = ModelRegistered | ModelDeleted | ModelFilesRemoved | ModelFilesKept


class Model(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a model."""

    model_id: int
    path: str
    deleted: bool = False
    files_removed: bool = False
    files_kept: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is known what became of a deleted model's files."""
        return self.files_removed or self.files_kept is not None


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
            return msgspec.structs.replace(model, files_removed=True, files_kept=None)
        case ModelFilesKept(reason=reason):
            return msgspec.structs.replace(model, files_kept=reason)
        case _:
            assert_never(event)


def register(spec: wire.JobSpec, parameters: wire.TrainingParameters, model: wire.SavedModel, model_id: int) -> Event:
    """The model that a completed job leaves."""
    return ModelRegistered(model_id=model_id, name=spec.output_name, spec=spec, parameters=parameters, model=model)


def decide(model: Model | None, command: Command, used_by: str | None) -> list[Event]:
    """Delete. `used_by`: the active job that trains on this model or works with it, if any.

    Raises:
        NotFound: there is no such model, or no longer.
        Conflict: an active job uses it.
    """
    if model is None or model.deleted:
        raise NotFound("No such model", f"There is no model {command.model_id}; GET /api/models lists them.")
    if used_by is not None:
        raise Conflict(
            "The model is in use",
            f"Job {used_by} uses model {command.model_id}; stop it or wait for its end.",
        )
    return [ModelDeleted(model_id=command.model_id, path=model.path)]


def decide_report(model: Model | None, report: Report) -> list[Event]:
    """What became of a deleted model's files, unless that is known already."""
    if model is None or not model.deleted or model.files_removed:
        return []
    match report:
        case ReportFilesRemoved(model_id=model_id):
            return [ModelFilesRemoved(model_id=model_id)]
        case ReportFilesKept(reason=reason) if reason == model.files_kept:
            return []
        case ReportFilesKept(model_id=model_id, reason=reason):
            return [ModelFilesKept(model_id=model_id, reason=reason)]
        case _:
            assert_never(report)


def stream_of(model_id: int) -> str:
    """The stream of a model."""
    return f"model:{model_id}"
