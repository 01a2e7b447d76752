"""What a training begins with: a model that is loaded as it is, or one that was trained here, by its id or name."""

from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.admission.context import Admission
from modelforge.admission.model import check_model
from modelforge.domain.conflicts import Asked, check_conflicts
from modelforge.domain.purposes import Purpose
from modelforge.errors import BadInput, ModelNotFound
from modelforge.fields import check_label
from modelforge.machine.reading_threads import read_apart
from modelforge.model_files import read_file
from modelforge.projections.models import ModelDetails
from trainer_entry import wire

_FIELD = "model_name"
_CONFIG = "adapter_config.json"
_MOST_NAMED = 10
_MOST_DIGITS = 15
_ITS_OWN = ("use_rslora", "use_dora", "modules_to_save")
_LEFT_OUT = wire.TrainingParameters()


class Origin(Struct, frozen=True, kw_only=True, gc=False):
    """The model to load, and the adapter on it that is trained further, if one is.

    `parameters`: those that were asked for, and where an adapter is trained further those that it has.
    """

    model_name: str
    model_path: str
    parameters: wire.TrainingParameters
    adapter: wire.EarlierAdapter | None = None
    lineage: tuple[wire.Ancestor, ...] = ()


class _AdapterConfig(Struct):
    """The parts of `adapter_config.json` that are parameters here."""

    r: int
    lora_alpha: int | float
    target_modules: str | list[str]


async def resolve_origin(
    admission: Admission, name: str, purpose: Purpose, parameters: wire.TrainingParameters
) -> Origin:
    """Find the model that a training names, and check that it can be trained so.

    An adapter's own base is loaded, and it is trained further on that; or it is merged into it first, where all weights
    are trained.

    Raises:
        BadInput: it cannot be used, or not for this; the message says why.
        NotFound: it is not there.
    """
    check_label(name, _FIELD)
    roots = admission.model_roots
    trained = trained_model(admission, name)
    if trained is None:
        path = await check_model(name, roots, purpose=purpose)
        return Origin(model_name=name, model_path=path, parameters=parameters)
    lineage = (ancestor_of(trained), *trained.lineage)
    if trained.kind == "full":
        path = await check_model(trained.path, roots, purpose=purpose)
        return Origin(model_name=trained.name, model_path=path, parameters=parameters, lineage=lineage)
    _check_task(trained, purpose.task)
    made_by = admission.read_models.jobs.get(trained.job_id)
    return Origin(
        model_name=trained.base_model,
        model_path=await check_model(trained.base_path, roots, purpose=purpose),
        parameters=await read_apart(_with_adapter, trained, purpose, parameters) if parameters.use_lora else parameters,
        adapter=wire.EarlierAdapter(
            path=trained.path, base_revision=None if made_by is None else made_by.base_revision
        ),
        lineage=lineage,
    )


def ancestor_of(trained: ModelDetails) -> wire.Ancestor:
    """A trained model as one that another comes of."""
    return wire.Ancestor(model_id=trained.id, name=trained.name, job_id=trained.job_id, base_model=trained.base_model)


def trained_model(admission: Admission, name: str) -> ModelDetails | None:
    """The trained model that is meant by an id, a name, or the path of its folder; None where none is.

    Raises:
        BadInput: several have the name.
        NotFound: no model has the id.
    """
    if name == wire.BUILT_IN_MODEL:
        return None
    models = admission.read_models.models
    if name.isascii() and name.isdecimal():
        if (numbered := models.get(int(name[:_MOST_DIGITS]))) is not None and str(numbered.id) == name:
            return numbered
        raise ModelNotFound("No such model", f"{_FIELD}: there is no model {name[:40]}; GET /api/models lists them.")
    found = admission.indexes.models_called(name)
    if len(found) > 1:
        ids = ", ".join(str(number) for number in found[-_MOST_NAMED:])
        raise BadInput(
            "Several trained models have this name", f"{name}: name one of them by its id: {ids}.", field=_FIELD
        )
    return models[found[0]] if found else None


def _check_task(trained: ModelDetails, task: wire.Task) -> None:
    """Refuse an adapter with a head for answers for another task, and any other one for answers."""
    answers = "extractive-question-answering"
    if trained.task != task and answers in {trained.task, task}:
        raise BadInput(
            "The adapter is for another task",
            f"Model {trained.id} was trained for {trained.task}: name its base, {trained.base_model}, for {task}.",
            field=_FIELD,
        )


def _with_adapter(
    trained: ModelDetails, purpose: Purpose, parameters: wire.TrainingParameters
) -> wire.TrainingParameters:
    """The parameters with what the adapter has of them, which is not changed any more.

    Raises:
        BadInput: another rank, scale or other layers are asked for, or the adapter cannot be read, or trained so.
    """
    try:
        config = msgspec.json.decode(read_file(Path(trained.path), _CONFIG), type=_AdapterConfig)
        layers = config.target_modules
        own = {
            "lora_r": config.r,
            "lora_alpha": int(config.lora_alpha),
            "target_modules": layers if isinstance(layers, str) else tuple(sorted(layers)),
            "init_lora_weights": True,  # it has its numbers
            **{name: trained.training_params[name] for name in _ITS_OWN if name in trained.training_params},
        }
        changed = msgspec.convert({**msgspec.to_builtins(parameters), **own}, wire.TrainingParameters)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput("The adapter cannot be read", f"{trained.path}: {error}", field=_FIELD) from error
    for name in own:
        asked, has = getattr(parameters, name), getattr(changed, name)
        if asked != getattr(_LEFT_OUT, name) and _as_set(asked) != _as_set(has):
            raise BadInput(
                f"{name} does not go with an adapter that is trained further",
                f"Model {trained.id} has {_in_words(has)}: leave {name} out, or merge the adapter "
                f"(POST /api/models/{trained.id}/merge) and name the merged model.",
                field=name,
            )
    _check_conflicts(trained, purpose, parameters, changed)
    return changed


def _check_conflicts(
    trained: ModelDetails, purpose: Purpose, asked: wire.TrainingParameters, changed: wire.TrainingParameters
) -> None:
    """Refuse what does not go together with a parameter that was not asked for, but is the adapter's."""
    # Its file lists the layers that are trained whole among its targets; peft keeps both apart.
    named = msgspec.structs.replace(changed, target_modules=_LEFT_OUT.target_modules)
    try:
        check_conflicts(Asked(purpose.task, purpose.strategy, purpose.provider, named))
    except BadInput as error:
        name = error.field
        if name not in _ITS_OWN or getattr(asked, name) != getattr(_LEFT_OUT, name):
            return  # whoever checks what was asked for says so
        raise BadInput(
            error.message,
            f"Model {trained.id} has {name}, and keeps it: leave out the other, or merge the adapter "
            f"(POST /api/models/{trained.id}/merge) and name the merged model.",
            field=_FIELD,
        ) from error


def _as_set(value: object) -> object:
    return frozenset(value) if isinstance(value, tuple) else value


def _in_words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
