"""Whether a model's tokenizer can be read, and whether it says how to write a conversation.

A `tokenizer.json` is read by the library of the trainers, in a process of its own (tokenizer_file): a large vocabulary
takes hundreds of megabytes, and the file is a stranger's.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.admission.estimate import tokenizer_file
from modelforge.admission.estimate.architecture import architecture_of
from modelforge.errors import BadInput
from modelforge.machine.child_limits import ChildLimits
from modelforge.machine.child_process import run_module
from modelforge.machine.reading_threads import read_apart
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.model_files import has_file, names_in, open_file, read_file
from trainer_entry.wire.model_files import TEMPLATES

_FAST = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_MODEL = "config.json"
# What transformers makes a tokenizer of where there is none: word pieces, byte pairs, and others.
_VOCABULARIES = ("vocab.json", "vocab.txt", "bpe.codes", "tekken.json", "byte_maps.json", "prophetnet.tokenizer")
_SENTENCE_PIECES = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model", "sentencepiece.model"),
    *("spm_char.model", "source.spm"),
)
_WITHOUT_FILES = frozenset({"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"})  # of bytes or characters
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_NO_TEMPLATES = frozenset({b"null", b'""', b"[]"})
_SECONDS = 60.0
_LIMITS = ChildLimits(memory_bytes=3 << 30)
"""A vocabulary of a million tokens takes one."""


class _Settings(Struct):
    """The parts of `tokenizer_config.json` that are read."""

    tokenizer_class: str | None = None
    chat_template: msgspec.Raw = msgspec.Raw(b"null")  # a text, or several with names
    added_tokens_decoder: dict[int, msgspec.Raw] = {}


class _File(Struct, frozen=True, gc=False):
    """A file as it was when it was read."""

    path: Path
    size: int
    changed: int


_readable: dict[_File, int] = {}
"""Files that were read without a fault, and how many tokens each has: not read again while they stay as they are."""
_MOST_REMEMBERED = 1000


async def check_tokenizer(name: str, folder: Path, field: str) -> None:
    """Refuse a model whose tokenizer is not there, or cannot be read. `name`: as a client named it, in `field`.

    Raises:
        BadInput: it says which file.
    """
    check_trainer_libraries()
    try:
        opened = await read_apart(open_file, folder, _FAST)
    except FileNotFoundError:
        await read_apart(_check_vocabulary, name, folder, field)
        return
    except OSError as error:
        raise _unreadable(name, str(error.strerror), field) from error
    with opened:
        status = os.fstat(opened.fileno())
        file = _File(folder / _FAST, status.st_size, status.st_mtime_ns)
        if file in _readable:
            return
        try:
            ended = await run_module(tokenizer_file.__name__, stdin=opened, seconds=_SECONDS, limits=_LIMITS)
        except TimeoutError as error:
            raise _unreadable(name, f"it took more than {_SECONDS:.0f} s to read", field) from error
    if ended.code == tokenizer_file.UNREADABLE:
        raise _unreadable(name, ended.words, field)
    if ended.code < 0:
        raise _unreadable(name, f"it took more than {_LIMITS.memory_bytes} bytes of memory to read", field)
    if ended.code != 0:
        raise RuntimeError(f"The tokenizer check ended with {ended.code}: {ended.words}")
    if len(_readable) >= _MOST_REMEMBERED:
        _readable.clear()
    _readable[file] = int(ended.output)


def tokens_beyond(folder: Path) -> bool:
    """Whether a tokenizer that was checked may have more tokens than its model has embeddings of."""
    try:
        architecture, settings = architecture_of(read_file(folder, _MODEL)), _settings_in(folder)
    except (OSError, ValueError, RecursionError):  # the checks of the model have said so
        return False
    count = max([_count_read(folder / _FAST), *(number + 1 for number in settings.added_tokens_decoder)])
    return architecture is not None and count > architecture.vocabulary


def _count_read(path: Path) -> int:
    """How many tokens a file had when it was read; 0 where it was not, as it is now."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return _readable.get(_File(path, status.st_size, status.st_mtime_ns), 0)


def _settings_in(folder: Path) -> _Settings:
    """What a tokenizer's settings say; nothing where it has none."""
    try:
        return msgspec.json.decode(read_file(folder, _CONFIG), type=_Settings)
    except FileNotFoundError:
        return _Settings()


def _unreadable(name: str, why: str, field: str) -> BadInput:
    return BadInput(
        "The model's tokenizer cannot be read",
        f"{name}: {_FAST}: {why}. Copy or download the file again.",
        field=field,
    )


def _check_vocabulary(name: str, folder: Path, field: str) -> None:
    """Refuse a model that has not even what a tokenizer could be made of."""
    if any(has_file(folder, file) for file in (*_VOCABULARIES, *_SENTENCE_PIECES)):
        return
    try:
        settings = msgspec.json.decode(read_file(folder, _CONFIG), type=_Settings)
    except (OSError, ValueError, RecursionError):  # the refusal that follows says what to do in any case
        settings = _Settings()
    if settings.tokenizer_class not in _WITHOUT_FILES:
        raise BadInput(
            "The model has no tokenizer",
            f"{name} has no {_FAST}; save the tokenizer into the model's folder too.",
            field=field,
        )


def check_chat_template(name: str, folder: Path, field: str, *, tools: bool = False) -> None:
    """Refuse a model that does not say how to write a conversation, or, where there are `tools`, how to write these.

    Raises:
        BadInput: it has no template, or one that knows no tools, or a file that would have it cannot be read.
    """
    templates = _templates_in(name, folder, field)
    if not templates:
        raise BadInput(
            "The dataset has conversations, and the model has no chat template to write them with",
            f"{name}: use an instruction-tuned model, or records of input and output.",
            field=field,
        )
    if tools and not any(b"tool" in template for template in templates):
        raise BadInput(
            "The dataset has tools, and the model's chat template knows no tools",
            f"{name}: use a model whose chat template does, or records without tools and calls.",
            field=field,
        )


def _templates_in(name: str, folder: Path, field: str) -> list[bytes]:
    """The chat templates of a model, as they stand in its files; transformers takes those in files of their own."""
    file = _CONFIG
    try:
        own = [at for at in _TEMPLATES if has_file(folder, at)]
        own += _further_templates(folder)
        if own:
            return [read_file(folder, file := at) for at in own]
        template = bytes(msgspec.json.decode(read_file(folder, file), type=_Settings).chat_template)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput("A model's file cannot be read", f"{name}: {file}: {error}", field=field) from error
    return [] if template in _NO_TEMPLATES else [template]


def _further_templates(folder: Path) -> list[str]:
    """The templates that stand in a folder of their own."""
    try:
        names = names_in(folder, TEMPLATES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{TEMPLATES}/{name}" for name in sorted(names) if name.endswith(".jinja")]
