"""The model that a request names, checked before anything is started: it is there, and safe to load."""

import re
from pathlib import Path

import msgspec
from huggingface_hub import constants
from msgspec import Struct

from modelforge import hub, model_files
from modelforge.admission.foreign_code import code_in
from modelforge.domain.compatibility import Build, check_build
from modelforge.domain.purposes import Purpose
from modelforge.errors import BadInput, ModelNotFound
from modelforge.machine.reading_threads import read_apart
from trainer_entry.wire import BUILT_IN_MODEL

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
# What trainers leave beside a model; never loaded as weights.
_HARMLESS = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})
_MOST_PAIRS = 200_000  # of names and values in a configuration: those of a vocabulary of labels, twice
_HUB_SECONDS = 3.0
_CONNECT_SECONDS = 1.0  # a machine without a network shall say so at once
# How the names of architectures end: of those that write a text, and of those that only read one.
_WRITING = ("ForCausalLM", "LMHeadModel")
_READING = (
    *("ForMaskedLM", "ForPreTraining", "ForQuestionAnswering", "ForSequenceClassification"),
    *("ForTokenClassification", "ForMultipleChoice", "ForNextSentencePrediction"),
)
# The kinds of model that only read, whatever their files were saved from; GPT2Model and the like write as well.
_READERS = frozenset(
    {
        *("albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2"),
        *("distilbert", "electra", "ernie", "esm", "eurobert", "flaubert", "fnet", "funnel", "ibert", "longformer"),
        *("luke", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer"),
        *("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "squeezebert", "xlm-roberta"),
        *("xlm-roberta-xl", "xmod", "yoso"),
    }
)


_MOST_NOTES = 16
"""How many files may be called configurations that no library of ours reads as one."""
_MOST_BYTES = 16 << 20
"""What all configurations of a model may have together."""
_LOADED = frozenset({"config.json", "adapter_config.json", "generation_config.json", "tokenizer_config.json"})
"""What of a model's folder is read as its configuration."""


class _Config(Struct):
    """The parts of `config.json` that are read."""

    is_encoder_decoder: bool = False
    is_decoder: bool = False
    model_type: str | None = None
    architectures: list[str] | None = None


class _Sibling(Struct):
    rfilename: str


class _HubModel(Struct):
    """The parts of the hub's answer about a model that are read."""

    config: msgspec.Raw = msgspec.Raw(b"null")
    siblings: list[_Sibling] = []


async def check_model(
    name: str, roots: tuple[Path, ...], field: str = "model_name", purpose: Purpose | None = None
) -> str:
    """What to load for a name: a resolved folder, a hub id, or the built-in name. `purpose`: what it has to be fit for.

    Raises:
        BadInput: it cannot or must not be loaded.
        NotFound: it is not there.
    """
    if name == BUILT_IN_MODEL:
        return name
    if Path(name).is_absolute() or name.startswith(("~", ".")):
        return str(await read_apart(_check_folder, name, roots, field, purpose))
    if not _HUB_ID.fullmatch(name):
        raise BadInput(
            f"{name!r} is no model name",
            f'Send a folder as an absolute path, a hub id as "owner/name", or "{BUILT_IN_MODEL}".',
            field=field,
        )
    if not await read_apart(_check_cached, name, field, purpose):
        await _check_hub(name, field, purpose)
    return name


def _check_cached(name: str, field: str, purpose: Purpose | None) -> bool:
    """Check a model of the hub that is whole on this machine; False where none is."""
    snapshot = hub.cached_snapshot(name)
    if snapshot is None:
        return False
    names = _names_in(name, snapshot, field)
    _check_files(name, names, field)
    _check_configs(name, snapshot, names, field, purpose)
    return True


def _check_folder(name: str, roots: tuple[Path, ...], field: str, purpose: Purpose | None) -> Path:
    try:
        path = Path(name).expanduser().resolve()
        is_folder = path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The model's path cannot be used", f"{name}: {error}", field=field) from error
    if not any(path.is_relative_to(root) for root in roots):
        raise BadInput(
            "The model folder lies outside the model roots",
            f"{name} is in none of {', '.join(map(str, roots))}; start the server with --model-root to allow it.",
            field=field,
        )
    if not is_folder:
        raise ModelNotFound("No such model", f"{field}: there is no folder {name}.")
    names = _names_in(name, path, field)
    pickles = sorted(entry for entry in names if Path(entry).suffix.lower() in _PICKLES and not _is_harmless(entry))
    if pickles:
        raise BadInput(
            "The model folder has weights in pickle files, which can run code",
            f"{name}: {', '.join(pickles)}. Convert them to safetensors, and take these files away.",
            field=field,
        )
    _check_files(name, names, field)
    _check_configs(name, path, names, field, purpose)
    return path


def _names_in(name: str, folder: Path, field: str) -> frozenset[str]:
    """The names of a model's files, each of which can be read safely."""
    try:
        return model_files.check_files(folder)
    except model_files.UnsafeFile as unsafe:
        raise BadInput(
            "A model's file is not read", f"{name}: {unsafe.filename}: {unsafe.strerror}.", field=field
        ) from unsafe
    except OSError as error:
        where = f"{name}: {error.filename}" if isinstance(error.filename, str) else name
        raise BadInput("The model folder cannot be read", f"{where}: {error.strerror}", field=field) from error


def _is_harmless(name: str) -> bool:
    return name in _HARMLESS or name.startswith("rng_state")


def _check_files(name: str, names: frozenset[str], field: str) -> None:
    if "adapter_config.json" in names and "config.json" not in names:
        raise BadInput(
            "This is an adapter, not a whole model",
            f"{name}: name the model that it was trained from. One that was trained here goes on by its id.",
            field=field,
        )
    if "config.json" not in names:
        raise BadInput("This is no model", f"{name} has no config.json.", field=field)
    if not any(entry.endswith(".safetensors") for entry in names):
        raise BadInput(
            "The model has no safetensors weights",
            f"{name}: only *.safetensors is loaded; convert the model first.",
            field=field,
        )


def _check_configs(name: str, folder: Path, names: frozenset[str], field: str, purpose: Purpose | None) -> None:
    found = [one for one in names if one.endswith("config.json")]
    others = sorted(one for one in found if one not in _LOADED)
    if len(others) > _MOST_NOTES:
        raise BadInput(
            "The model has too many configurations",
            f"{name}: {len(others)} files beside the usual ones end in config.json; take some away.",
            field=field,
        )
    left = _MOST_BYTES
    for file in (*sorted(_LOADED.intersection(found)), *others):
        try:
            content = model_files.read_file(folder, file)
            left -= len(content)
            if left < 0:
                raise model_files.UnsafeFile(file, f"with those before it, it has more than {_MOST_BYTES} bytes")
            model_files.check_pairs(file, content, _MOST_PAIRS)
            code, config = code_in(content), msgspec.json.decode(content, type=_Config)
        except (OSError, RecursionError, ValueError) as error:
            if file not in _LOADED and not isinstance(error, model_files.UnsafeFile):
                continue  # whoever made the model keeps notes of their own beside it
            why = getattr(error, "strerror", None) or error
            raise BadInput("A model's file cannot be read", f"{name}: {file}: {why}", field=field) from error
        _check_code(name, file, code, field)
        if file == "config.json":
            _check_purpose(name, config, field, purpose)


def _check_code(name: str, file: str, code: str | None, field: str) -> None:
    if code is not None:
        raise BadInput(
            "The model brings code of its own, which is never run",
            f"{name}: {file} has {code}. Use a model of an architecture that transformers has itself.",
            field=field,
        )


def _check_purpose(name: str, config: _Config, field: str, purpose: Purpose | None) -> None:
    build = _build_of(config)
    if build is not None and purpose is not None:
        check_build(f"{name} ({', '.join(config.architectures or ['?'])})", build, purpose, field)


def _build_of(config: _Config) -> Build | None:
    """How a model is built, as far as its config says."""
    names = config.architectures or []
    if config.is_encoder_decoder:
        return "encoder-decoder"
    if any(name.endswith(_WRITING) for name in names):
        return "causal"
    if config.model_type in _READERS and not config.is_decoder and all(name.endswith("Model") for name in names):
        return "headless"
    return "headless" if names and all(name.endswith((*_READING, "EncoderModel")) for name in names) else None


async def _check_hub(name: str, field: str, purpose: Purpose | None) -> None:
    if constants.HF_HUB_OFFLINE:
        raise ModelNotFound(
            "No such model", f"{field}: {name} is not whole in the hub's cache, and HF_HUB_OFFLINE is set."
        )
    try:
        answer = await hub.get(f"/api/models/{name}", seconds=_HUB_SECONDS, connect_seconds=_CONNECT_SECONDS)
    except hub.HubUnreachable as error:
        raise ModelNotFound(
            "The model is not on this machine, and the hub cannot be reached",
            f"{field}: {name} is not whole in the hub's cache ({constants.HF_HUB_CACHE}); the hub: {error}. "
            f'Send a folder, or "{BUILT_IN_MODEL}", which needs no hub.',
        ) from error
    if answer.status != 200:  # noqa: PLR2004
        raise ModelNotFound(
            "The hub does not give this model",
            f"{field}: {name}: the hub answered {answer.status}. Check the spelling; for a private or gated model "
            "start the server with HF_TOKEN set, or log in once with `hf auth login`.",
        )
    try:
        found = msgspec.json.decode(answer.body, type=_HubModel)
        code, config = code_in(bytes(found.config)), msgspec.json.decode(found.config, type=_Config | None)
    except (ValueError, RecursionError) as error:
        raise ModelNotFound("The hub's answer cannot be read", f"{field}: {name}: {error}") from error
    _check_files(name, frozenset(sibling.rfilename for sibling in found.siblings), field)
    _check_code(name, "config.json", code, field)
    if config is not None:
        _check_purpose(name, config, field, purpose)
