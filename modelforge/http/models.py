"""The trained models."""

from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.domain import model
from modelforge.errors import Conflict, FilesKept, NotFound
from modelforge.fields import project_struct
from modelforge.http.plumbing.body import idempotency_key, json_response, whole_number
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import HANDLER, PLAYGROUND, PROJECTOR
from modelforge.http.plumbing.route import Route
from modelforge.projections.jobs import DatasetReference
from modelforge.projections.models import ModelDetails
from trainer_entry import wire


class ModelSummary(Struct, frozen=True, kw_only=True):
    """A trained model in the list. Each field is the one of that name in its details."""

    id: int
    name: str
    base_model: str
    task: str
    created_at: str
    size_mb: float
    kind: str
    job_id: str
    strategy: wire.Strategy
    metrics: dict[str, float | None]
    dataset: DatasetReference
    merged_from: int | None
    lineage: tuple[wire.Ancestor, ...]


class ModelList(Struct, frozen=True, kw_only=True):
    """The trained models, oldest first."""

    models: list[ModelSummary]


class Deleted(Struct, frozen=True, kw_only=True):
    """The model and its files are gone."""

    status: Literal["deleted"] = "deleted"
    message: str = "Model deleted successfully"


def find_model(request: web.Request, model_id: int | str) -> ModelDetails:
    """The model with an id.

    Raises:
        NotFound: there is none.
    """
    number = whole_number(str(model_id))
    details = request.app[PROJECTOR].read_models.model(-1 if number is None else number)
    if details is None:
        raise NotFound("No such model", f"There is no model {str(model_id)[:40]}; GET /api/models lists them.")
    return details


async def list_models(request: web.Request) -> web.Response:
    """List the trained models."""
    models = request.app[PROJECTOR].read_models.models.values()
    return json_response(ModelList(models=[project_struct(details, ModelSummary) for details in models]))


async def get_model(request: web.Request) -> web.Response:
    """One trained model, with everything that made it."""
    return json_response(find_model(request, request.match_info["model_id"]))


async def remove_model(request: web.Request, details: ModelDetails) -> None:
    """Delete a trained model; its files are gone when this returns.

    Raises:
        Conflict: it is in use.
        FilesKept: it is off the list, and its files could not be removed.
    """
    if request.app[PLAYGROUND].uses(details.path):
        raise Conflict("The model is in use", f"The playground answers with model {details.id}; wait for its end.")
    handler, key = request.app[HANDLER], await idempotency_key(request)
    await handler.submit(model.DeleteModel(model_id=details.id, key=key), actor=actor_of(request))
    await request.app[PROJECTOR].until(lambda: handler.state.models[details.id].is_settled)
    kept = handler.state.models[details.id].files_kept
    if kept is not None:
        raise FilesKept("The model is off the list, but its files are still there", f"{kept}. Each start tries again.")


async def delete_model(request: web.Request) -> web.Response:
    """Delete a trained model; its files are gone when this answers."""
    await remove_model(request, find_model(request, request.match_info["model_id"]))
    return json_response(Deleted())


ROUTES = (
    Route(method="GET", path="/api/models", handler=list_models, answer=ModelList),
    Route(method="GET", path="/api/models/{model_id}", handler=get_model, answer=ModelDetails, errors=(404,)),
    Route(
        method="DELETE",
        path="/api/models/{model_id}",
        handler=delete_model,
        answer=Deleted,
        errors=(404, 409, 507),
    ),
)
