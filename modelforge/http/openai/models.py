"""Models of OpenAI's clients: those that were trained here, what they were trained from, and the built-in one."""

from itertools import chain
from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.errors import BadInput, ModelNotFound
from modelforge.http.models import remove_model
from modelforge.http.openai.identifiers import model_name, model_of, unix_seconds
from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.keys import PROJECTOR
from modelforge.http.plumbing.long_lists import list_response
from modelforge.http.plumbing.route import Route
from modelforge.projections.listed import ListedModel, listed_model
from trainer_entry import wire


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model. `created`: Unix seconds; 0 of one that was not trained here."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["modelforge", "base"]


class ModelObjectList(Struct, frozen=True, kw_only=True):
    """All models: this list has one page."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
    has_more: bool = False


class ModelObjectDeleted(Struct, frozen=True, kw_only=True):
    """The model and its files are gone."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


def _object_of(number: int, listed: ListedModel) -> ModelObject:
    name = model_name(number, listed)
    return ModelObject(id=name, created=unix_seconds(listed.created_at), owned_by="modelforge")


def _bases(request: web.Request) -> dict[str, None]:
    """What the trained models were trained from, each once, and the built-in model."""
    return dict.fromkeys((wire.BUILT_IN_MODEL, *request.app[PROJECTOR].indexes.bases()))


def _is_base(request: web.Request, name: str) -> bool:
    return name == wire.BUILT_IN_MODEL or request.app[PROJECTOR].indexes.is_base(name)


def no_such_model(name: str) -> ModelNotFound:
    """The refusal of a name that no model has."""
    return ModelNotFound("No such model", f"There is no model {name[:200]!r}; GET /v1/models lists them.")


async def list_model_objects(request: web.Request) -> web.StreamResponse:
    """List the trained models, newest first, and then their bases."""
    trained = request.app[PROJECTOR].read_models.listed_models
    numbers = reversed(request.app[PROJECTOR].indexes.models_after(0))
    found = (_object_of(number, trained[number]) for number in numbers if number in trained)
    bases = (ModelObject(id=name, created=0, owned_by="base") for name in _bases(request))
    return await list_response(request, ModelObjectList(data=[]), "data", chain(found, bases))


async def retrieve_model_object(request: web.Request) -> web.Response:
    """One model, by its id or as a base's name; slashes in it are percent-encoded."""
    name = request.match_info["model"]
    details = model_of(request.app[PROJECTOR].read_models.models, name)
    if details is not None:
        return json_response(_object_of(details.id, listed_model(details)))
    if _is_base(request, name):
        return json_response(ModelObject(id=name, created=0, owned_by="base"))
    raise no_such_model(name)


async def delete_model_object(request: web.Request) -> web.Response:
    """Delete a trained model; its files are gone when this answers."""
    name = request.match_info["model"]
    details = model_of(request.app[PROJECTOR].read_models.models, name)
    if details is None and _is_base(request, name):
        raise BadInput(
            "The model was not trained here", f"{name} is no file of this server's to delete.", field="model"
        )
    if details is None:
        raise no_such_model(name)
    await remove_model(request, details)
    return json_response(ModelObjectDeleted(id=name))


ROUTES = (
    Route(method="GET", path="/v1/models", handler=list_model_objects, answer=ModelObjectList),
    Route(method="GET", path="/v1/models/{model}", handler=retrieve_model_object, answer=ModelObject, errors=(404,)),
    Route(
        method="DELETE",
        path="/v1/models/{model}",
        handler=delete_model_object,
        answer=ModelObjectDeleted,
        errors=(400, 404, 409, 507),
    ),
)
