"""A reward function in a file of the user's: the bytes that were accepted, and whatever it does wrong said by name."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from trainer_entry.rewards.python_file import load_function
from trainer_entry.runtime.failures import RewardFileChanged, RewardFunctionFails
from trainer_entry.wire.rewards import PythonFile

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, source: str, function: str = "reward") -> PythonFile:
    path.write_text(source)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return PythonFile(path=str(path), function=function, sha256=sha256)


def rewards(asked: PythonFile, completions: list[Any], **columns: Any) -> list[float | None]:
    return list(load_function(asked)(prompts=["?"] * len(completions), completions=completions, **columns))


def test_it_is_called_as_trl_calls_a_reward_function(tmp_path: Path) -> None:
    source = (
        "def brevity(prompts, completions, answer, **columns):\n"
        "    return [None if a == '?' else len(c) / len(a) for c, a in zip(completions, answer)]\n"
    )
    asked = written(tmp_path / "rewards.py", source, "brevity")
    assert rewards(asked, ["ab", "abc", ""], answer=["abcd", "?", "a"], level=[1, 2, 3]) == [0.5, None, 0]


def test_what_it_prints_comes_to_the_log_and_no_compiled_file_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "import os\ndef reward(completions, **_):\n    os.write(2, b'seen')\n    return [1.0] * len(completions)\n"
    assert rewards(written(tmp_path / "rewards.py", source), ["a"]) == [1]
    assert capfd.readouterr().err == "seen"
    assert [path.name for path in tmp_path.iterdir()] == ["rewards.py"]


@pytest.mark.parametrize(
    ("returns", "says"),
    [
        ("[1.0]", "returned 1 rewards for 2 completions"),
        ("[1.0, 2.0, 3.0]", "returned 3 rewards for 2 completions"),
        ("[1.0, float('nan')]", "reward 1 is nan"),
        ("[float('-inf'), 0]", "reward 0 is -inf"),
        ("['1', 0]", "reward 0 is '1', and no number"),
        ("[[1.0], 0]", r"reward 0 is \[1.0\], and no number"),
        ("None", "returned a NoneType"),
        ("1.0", "returned a float"),
        ("{0: 1.0, 1: 1.0}", "returned a dict"),
    ],
)
def test_what_is_no_list_of_rewards_is_refused_by_file_and_function(tmp_path: Path, returns: str, says: str) -> None:
    asked = written(tmp_path / "rewards.py", f"def reward(**_):\n    return {returns}\n")
    with pytest.raises(RewardFunctionFails, match=says) as failure:
        rewards(asked, ["a", "b"])
    assert f"{tmp_path / 'rewards.py'}, function reward" in str(failure.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def reward(**_):\n    pass\n    raise KeyError('level')\n", r"raised \(line 3\): KeyError: 'level'"),
        ("import sys\ndef reward(**_):\n    sys.exit(3)\n", r"raised \(line 3\): SystemExit: 3"),
        ("def reward(completions):\n    return [1.0]\n", "raised: TypeError"),
        ("import sys\nsys.exit()\n", r"cannot be run \(line 2\): SystemExit"),
        ("x = 1\nimport there_is_no_such_module\n", r"cannot be run \(line 2\): ModuleNotFoundError"),
        ("def reward(:\n", r"cannot be run \(line 1\): SyntaxError"),
        ("reward = 3\n", "has no function reward"),
        ("async def reward(**_):\n    return [1.0]\n", "has an async function reward"),
    ],
)
def test_what_a_file_does_wrong_is_said_by_its_line(tmp_path: Path, source: str, says: str) -> None:
    asked = written(tmp_path / "rewards.py", source)
    with pytest.raises(RewardFunctionFails, match=says) as failure:
        rewards(asked, ["a"])
    assert str(tmp_path / "rewards.py") in str(failure.value)


def test_a_file_that_has_changed_or_is_gone_is_not_run(tmp_path: Path) -> None:
    asked = written(tmp_path / "rewards.py", "def reward(**_):\n    return [1.0]\n")
    (tmp_path / "rewards.py").write_text("import pathlib\npathlib.Path(__file__ + '.ran').touch()\n")
    with pytest.raises(RewardFileChanged, match="has changed since the job was accepted"):
        load_function(asked)
    os.unlink(tmp_path / "rewards.py")  # noqa: PTH108
    with pytest.raises(RewardFileChanged, match="cannot be read"):
        load_function(asked)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_hash_is_not_run(tmp_path: Path) -> None:
    asked = written(tmp_path / "rewards.py", "raise AssertionError\n")
    with pytest.raises(RewardFileChanged):
        load_function(PythonFile(path=asked.path))


def test_classes_of_a_file_find_their_module(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Judged:\n    score: float\n"
        "def reward(completions, **_):\n    return [Judged(2.0).score for _ in completions]\n"
    )
    before = set(sys.modules)
    assert rewards(written(tmp_path / "rewards.py", source), ["a"]) == [2]
    for name in set(sys.modules) - before:
        del sys.modules[name]
