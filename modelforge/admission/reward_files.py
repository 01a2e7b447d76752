"""A Python file that is to reward a policy: where it lies, what bytes it has, and that it has the function.

It is read and parsed here, and never run: that is for a trainer's process.
"""

import ast
import hashlib
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec

from modelforge.errors import BadInput, NotFound
from modelforge.fields import check_label
from trainer_entry.wire.rewards import PythonFile

_LARGEST_FILE = 1 << 18  # Python's parser takes long for some texts that are long
CHANGED = "sha256"
"""The last part of the field of a refusal, where a file is not the one that was asked for."""
QUIET = threading.Lock()
"""Warnings are silenced for a whole process: by one thread at a time, or they would stay so."""


def check_file(asked: PythonFile, roots: tuple[Path, ...], at: str) -> PythonFile:
    """The function with the file's resolved path and its SHA-256. `at`: where the request has it.

    Raises:
        BadInput: it lies outside of the roots, is no Python, or has no such function.
        NotFound: it is not there.
    """
    field = f"{at}.path"
    check_label(asked.path, field)
    if not roots:
        raise BadInput(
            "No Python file is run as a reward function here",
            "Start the server with --reward-root and a folder: the files under it are run by trainers, with all that "
            "they may do. The other reward functions need none.",
            field=field,
        )
    path = _allowed(asked.path, roots, field)
    try:
        with path.open("rb") as file:
            source = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise BadInput("The Python file cannot be read", f"{path}: {error.strerror}", field=field) from error
    if len(source) > _LARGEST_FILE:
        raise BadInput("The Python file is too large", f"{path} may have {_LARGEST_FILE} bytes.", field=field)
    sha256 = hashlib.sha256(source).hexdigest()
    if asked.sha256 not in {None, sha256}:
        raise BadInput(
            "The Python file has changed",
            f"{path} has the SHA-256 {sha256}, and {asked.sha256} was asked for. Bring the file back as it was, or "
            "leave sha256 out to be rewarded by it as it is.",
            field=f"{at}.{CHANGED}",
        )
    _check_source(asked, source, path, at)
    return msgspec.structs.replace(asked, path=str(path), sha256=sha256)


def _allowed(name: str, roots: tuple[Path, ...], field: str) -> Path:
    """The regular file of a path, under the roots once links are resolved."""
    try:
        absolute = Path(name).is_absolute()
        path = Path(name).resolve()
        inside = absolute and any(path.is_relative_to(root) for root in roots)
        exists, is_file = path.exists(), path.exists() and stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The Python file's path cannot be used", f"{name}: {error}", field=field) from error
    if not inside:
        raise BadInput(
            "The Python file lies outside the reward roots",
            f"{name} is in none of {', '.join(map(str, roots))}; send an absolute path in one of them, or start the "
            "server with --reward-root to allow its folder.",
            field=field,
        )
    if not exists:
        raise NotFound("No such Python file", f"{field}: there is no file {name}.")
    if not is_file:
        raise BadInput("The Python file is no regular file", f"{name} is a folder or a device.", field=field)
    return path


def _check_source(asked: PythonFile, source: bytes, path: Path, at: str) -> None:
    """Refuse what is no Python, or plainly has no such function; what it does is for the trainer to find out."""
    try:
        with QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise BadInput(
            "The Python file cannot be parsed",
            f"{path}{'' if line is None else f', line {line}'}: {getattr(error, 'msg', None) or error}.",
            field=f"{at}.path",
        ) from error
    names = set(_names_in(tree.body))
    if asked.function not in names and "*" not in names:
        found = ", ".join(sorted(names)[:20]) or "none"
        raise BadInput(
            f"The Python file has no function {asked.function}",
            f"{path} has {found}: add it, or name another.",
            field=f"{at}.function",
        )


def _names_in(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements give something, at the top of a module; `*` for what cannot be known."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
            case ast.Assign(targets=targets):
                yield from (node.id for one in targets for node in ast.walk(one) if isinstance(node, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                yield "*"
            case _:
                pass
