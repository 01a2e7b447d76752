"""A reward function in a Python file of the user's: the bytes that were accepted and no others, run in this process.

What it returns is looked at before a policy learns from it, and whatever it does wrong is said by file and function.
"""

import hashlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from trainer_entry.runtime.failures import RewardFileChanged, RewardFunctionFails, message_of
from trainer_entry.wire.rewards import PythonFile

_SHOWN = 60
RewardFunction = Callable[..., Sequence[float | None]]


def load_function(asked: PythonFile) -> RewardFunction:
    """The function, whose file is run once for it; each call's rewards are checked.

    Raises:
        RewardFileChanged: the file is gone, or not the one that the job was accepted with.
        RewardFunctionFails: the file cannot be run, or has no such function.
    """
    source = _read(asked)
    module = ModuleType(f"reward_file_{hashlib.sha256(source).hexdigest()[:16]}")
    module.__file__ = asked.path
    sys.modules[module.__name__] = module  # some libraries look up a class's module there
    try:
        exec(compile(source, asked.path, "exec"), module.__dict__)  # noqa: S102 - what this file is for
    except (Exception, SystemExit) as error:
        raise RewardFunctionFails(f"{asked.path} cannot be run{_where(asked, error)}: {_said(error)}") from error
    function = getattr(module, asked.function, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        kind = "no" if not callable(function) else "an async"
        raise RewardFunctionFails(f"{asked.path} has {kind} function {asked.function}. Write a plain one.")

    def call(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        try:
            returned = function(prompts=prompts, completions=completions, **columns)
        except (Exception, SystemExit) as error:
            raise RewardFunctionFails(f"{_named(asked)} raised{_where(asked, error)}: {_said(error)}") from error
        return _rewards(asked, returned, len(completions))

    return call


def _read(asked: PythonFile) -> bytes:
    try:
        source = Path(asked.path).read_bytes()
    except OSError as error:
        raise RewardFileChanged(f"{asked.path} cannot be read: {error.strerror}. Bring it back as it was.") from error
    sha256 = hashlib.sha256(source).hexdigest()
    if sha256 != asked.sha256:
        raise RewardFileChanged(
            f"{asked.path} has changed since the job was accepted: its SHA-256 is {sha256} and was {asked.sha256}. "
            "Bring back the file as it was, or start a new job."
        )
    return source


def _rewards(asked: PythonFile, returned: Any, count: int) -> list[float | None]:
    """What was returned, if it is a reward for each completion."""
    if not isinstance(returned, list | tuple):
        _refuse(asked, f"it returned a {type(returned).__name__}", "Return a list of numbers")
    if len(returned) != count:
        _refuse(asked, f"it returned {len(returned)} rewards for {count} completions", "Return one for each")
    rewards: list[float | None] = []
    for place, reward in enumerate(returned):
        try:
            number = None if reward is None else float("" if isinstance(reward, str | bytes) else reward)
        except (TypeError, ValueError):
            _refuse(asked, f"reward {place} is {repr(reward)[:_SHOWN]}, and no number", "Return numbers, or None")
        if number is not None and not math.isfinite(number):
            _refuse(asked, f"reward {place} is {number}", "Return finite numbers, or None for what cannot be rewarded")
        rewards.append(number)
    return rewards


def _refuse(asked: PythonFile, what: str, remedy: str) -> NoReturn:
    raise RewardFunctionFails(f"{_named(asked)}: {what}. {remedy}.")


def _named(asked: PythonFile) -> str:
    return f"{asked.path}, function {asked.function}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {message_of(error)}"


def _where(asked: PythonFile, error: BaseException) -> str:
    """The last line of the file that an error came through."""
    if isinstance(error, SyntaxError) and error.filename == asked.path:
        return f" (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == asked.path]
    return f" (line {lines[-1]})" if lines else ""
