"""The trained models."""

from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from modelforge.domain import model
from modelforge.errors import Conflict, FilesKept, NotFound
from modelforge.fields import project_struct
from modelforge.http.plumbing.body import idempotency_key, json_response, whole_number
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import HANDLER, PLAYGROUND, PROJECTOR
from modelforge.http.plumbing.long_lists import list_response
from modelforge.http.plumbing.query import int_query, optional_int
from modelforge.http.plumbing.route import Ordinal, Query, Route, limit_if_asked
from modelforge.projections.dataset_references import DatasetReference
from modelforge.projections.models import ModelDetails
from trainer_entry import wire

_LARGEST_PAGE = 1000


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
    """The trained models, oldest first. `has_more`: of a page, whether there is another."""

    models: list[ModelSummary]
    has_more: bool | UnsetType = UNSET


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


async def list_models(request: web.Request) -> web.StreamResponse:
    """List the trained models: all of them, or a page of those after one."""
    projector, models = request.app[PROJECTOR], request.app[PROJECTOR].read_models.models
    later = projector.indexes.models_after(int_query(request, "after", 0))
    limit = optional_int(request, "limit")
    shown = (project_struct(models[model_id], ModelSummary) for model_id in later[:limit] if model_id in models)
    has_more = UNSET if limit is None else len(later) > limit
    return await list_response(request, ModelList(models=[], has_more=has_more), "models", shown)


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
    Route(
        method="GET",
        path="/api/models",
        handler=list_models,
        answer=ModelList,
        query=(limit_if_asked(_LARGEST_PAGE), Query("after", Ordinal, "Go on after this model.")),
        errors=(400,),
    ),
    Route(method="GET", path="/api/models/{model_id}", handler=get_model, answer=ModelDetails, errors=(404,)),
    Route(
        method="DELETE",
        path="/api/models/{model_id}",
        handler=delete_model,
        answer=Deleted,
        errors=(404, 409, 507),
    ),
)
