"""The model that a request names, as `/v1/models` does, and what to load for it."""

import hashlib

from aiohttp import web
from msgspec import Struct

from modelforge.errors import BadInput
from modelforge.http.generation import Chosen, trained
from modelforge.http.openai.identifiers import model_of
from modelforge.http.openai.models import no_such_model
from modelforge.http.plumbing.keys import PROJECTOR
from modelforge.version import VERSION
from trainer_entry import wire

_SHOWN_HASH = 12


class NamedModel(Struct, frozen=True):
    """A model that writes texts, by its name."""

    name: str
    chosen: Chosen

    @property
    def fingerprint(self) -> str:
        """The same for the same model under the same release: then the same seed gives the same answer."""
        said = f"{VERSION}\n{self.chosen.model_path}\n{self.chosen.adapter_path}"
        return f"fp_{hashlib.sha256(said.encode()).hexdigest()[:_SHOWN_HASH]}"


def find_named_model(request: web.Request, name: str) -> NamedModel:
    """The model of a name.

    Raises:
        NotFound: there is none.
        BadInput: it writes no texts.
    """
    read_models = request.app[PROJECTOR].read_models
    details = model_of(read_models.models, name)
    chosen = trained(details) if details is not None else None
    if chosen is None and name == wire.BUILT_IN_MODEL:
        chosen = Chosen("text-generation", name)
    if chosen is None:
        # A base is for whatever was trained from it; where that is several tasks, for the first one here.
        newest = (request.app[PROJECTOR].indexes.newest_from(name, task) for task in _TASKS)
        chosen = next((Chosen(one.task, one.base_path) for one in newest if one is not None), None)
    if chosen is None:
        raise no_such_model(name)
    if chosen.task == "extractive-question-answering":
        raise BadInput(
            "The model writes no texts",
            f"{name[:200]} finds answers to questions in a text: ask POST /api/playground/generate, with a context.",
            field="model",
        )
    return NamedModel(name, chosen)


_TASKS: tuple[wire.Task, ...] = ("text-generation", "summarization", "extractive-question-answering")
