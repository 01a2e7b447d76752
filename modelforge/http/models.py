"""The trained models."""

from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.domain import model
from modelforge.errors import Conflict, NotFound
from modelforge.http.keys import HANDLER, PLAYGROUND, PROJECTOR
from modelforge.http.messages import answer, idempotency_key
from modelforge.projections.models import ModelDetails


class ModelSummary(Struct, frozen=True, kw_only=True):
    """A trained model in the list."""

    id: int
    name: str
    base_model: str
    task: str
    created_at: str
    size_mb: float
    kind: str
    job_id: str


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
    text = str(model_id)
    number = int(text) if text.isascii() and text.isdigit() else -1
    details = request.app[PROJECTOR].read_models.models.get(number)
    if details is None:
        raise NotFound("No such model", f"There is no model {model_id}; GET /api/models lists them.")
    return details


async def list_models(request: web.Request) -> web.Response:
    """List the trained models."""
    models = request.app[PROJECTOR].read_models.models.values()
    names = ModelSummary.__struct_fields__
    return answer(
        ModelList(models=[ModelSummary(**{name: getattr(details, name) for name in names}) for details in models])
    )


async def get_model(request: web.Request) -> web.Response:
    """One trained model, with everything that made it."""
    return answer(find_model(request, request.match_info["model_id"]))


async def delete_model(request: web.Request) -> web.Response:
    """Delete a trained model; its files are gone when this answers."""
    details = find_model(request, request.match_info["model_id"])
    if request.app[PLAYGROUND].uses(details.path):
        raise Conflict("The model is in use", f"The playground answers with model {details.id}; wait for its end.")
    handler, key = request.app[HANDLER], await idempotency_key(request)
    await handler.submit(model.DeleteModel(model_id=details.id, key=key))
    await request.app[PROJECTOR].until(lambda: handler.state.models[details.id].files_removed)
    return answer(Deleted())
