"""Reward functions are looked at before anything starts: patterns, schemas, files, fields."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from modelforge.admission.rewards import check_fields, check_reward_functions
from modelforge.errors import BadInput, NotFound
from trainer_entry import wire
from trainer_entry.wire.rewards import PythonFile

if TYPE_CHECKING:
    from pathlib import Path

FILE = "def reward(completions, **_):\n    return [1.0 for _ in completions]\n"


def parameters(*functions: Any) -> wire.TrainingParameters:
    return msgspec.convert({"reward_functions": functions}, wire.TrainingParameters)


async def refused(function: dict[str, Any], *roots: Path, kind: type[BadInput] = BadInput) -> BadInput:
    with pytest.raises(kind) as refusal:
        await check_reward_functions(parameters("exact_match", function), roots)
    return refusal.value


@pytest.mark.parametrize(
    ("pattern", "says", "why"),
    [
        ("a(b", "at character 2", "unterminated subpattern"),
        ("[a", "at character 1", "unterminated character set"),
        ("*a", "at character 1", "nothing to repeat"),
        ("(?P<a>x)(?P<a>y)", "at character", "redefinition of group name"),
        (r"\2", "at character", "invalid group reference"),
        ("(" * 400 + ")" * 400, "cannot be read", ""),
    ],
)
async def test_a_pattern_is_refused_where_it_is_wrong(pattern: str, says: str, why: str) -> None:
    if why:
        error = await refused({"name": "regular_expression", "pattern": pattern})
        assert (error.field, says in error.message) == ("reward_functions[1].pattern", True), error.message
        assert why in error.detail
    else:  # however deep it is, it is read or refused
        await check_reward_functions(parameters({"name": "regular_expression", "pattern": pattern}), ())


async def test_a_pattern_that_only_warns_is_taken() -> None:
    asked = parameters({"name": "regular_expression", "pattern": "[[a]"})
    assert await check_reward_functions(asked, ()) == asked


@pytest.mark.parametrize(("group", "has"), [(2, "0, 1, 'name'"), ("nome", "'name'")])
async def test_a_group_that_a_pattern_has_not_is_refused_with_those_that_it_has(group: object, has: str) -> None:
    error = await refused({"name": "regular_expression", "pattern": r"(?P<name>a)", "group": group})
    assert (error.field, has in error.detail) == ("reward_functions[1].group", True)


@pytest.mark.parametrize(
    ("schema", "field", "says"),
    [
        ({"type": "objekt"}, "schema", "At $.type"),
        ({"properties": {"a": {"minimum": "1"}}}, "schema", "At $.properties.a.minimum"),
        ({"$ref": "https://example.org/schema.json"}, "schema", "Nothing is fetched"),
        ({"$ref": "other.json"}, "schema", "Nothing is fetched"),
        ({"items": {"$ref": "#/$defs/none"}}, "schema", "$defs"),
        ({"$schema": "https://example.org/mine"}, "schema.$schema", "2020-12"),
        ({"$schema": 3}, "schema.$schema", "2020-12"),
        ({"pattern": "("}, "schema", "At $.pattern"),
        ({"$schema": "http://[x"}, "schema", "Invalid IPv6 URL"),
        ({"$id": "http://[x", "$ref": "#/$defs/a"}, "schema", "Nothing is fetched"),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "type": "none"}, "schema", "UnknownType"),
        ({"enum": ["x" * 20_000]}, "schema", "20000 bytes"),
        (json.loads('{"items": ' * 60 + "{}" + "}" * 60), "schema", "50 levels"),
    ],
)
async def test_a_schema_is_refused_where_it_is_wrong(schema: dict[str, Any], field: str, says: str) -> None:
    error = await refused({"name": "json_schema", "schema": schema})
    assert error.field == f"reward_functions[1].{field}"
    assert says in error.message + error.detail


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
async def test_a_schema_that_refers_to_what_is_known_is_taken(schema: dict[str, Any]) -> None:
    asked = parameters({"name": "json_schema", "schema": schema})
    assert await check_reward_functions(asked, ()) == asked


async def test_a_python_file_is_named_by_where_it_lies_and_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(FILE)
    (tmp_path / "link.py").symlink_to("rewards.py")
    checked = await check_reward_functions(
        parameters({"name": "python_file", "path": str(tmp_path / "link.py"), "weight": 2}), (tmp_path,)
    )
    sha256 = hashlib.sha256(FILE.encode()).hexdigest()
    assert checked.rewards == (PythonFile(path=str(tmp_path / "rewards.py"), sha256=sha256, weight=2),)
    assert await check_reward_functions(checked, (tmp_path,)) == checked
    (tmp_path / "rewards.py").write_text(FILE + "\n")
    with pytest.raises(BadInput, match="has changed") as refusal:
        await check_reward_functions(checked, (tmp_path,))
    assert refusal.value.field == "reward_functions[0].sha256"


async def test_a_python_file_is_run_nowhere_unless_the_server_was_told_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(FILE)
    error = await refused({"name": "python_file", "path": str(tmp_path / "rewards.py")})
    assert error.field == "reward_functions[1].path"
    assert "--reward-root" in error.detail


async def test_a_python_file_outside_of_the_roots_is_refused_whatever_leads_to_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.py"
    root.mkdir()
    outside.write_text("raise AssertionError('it is run nowhere')\n")
    (root / "link.py").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    for path in (outside, root / "link.py", root / "folder" / "outside.py", root / ".." / "outside.py"):
        error = await refused({"name": "python_file", "path": str(path)}, root)
        assert error.field == "reward_functions[1].path"
        assert ("outside the reward roots" in error.message, "--reward-root" in error.detail) == (True, True)
    for path in ("rewards.py", "./rewards.py", "a\0b"):
        assert (await refused({"name": "python_file", "path": path}, root)).field == "reward_functions[1].path"


async def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "broken.py").write_text("def reward(:\n")
    (tmp_path / "zeros.py").write_bytes(b"\0" * 10)
    (tmp_path / "other.py").write_text("import math\nlimit: float = 1.0\nclass Judge: ...\ndef score(): ...\n")
    (tmp_path / "large.py").write_text("#" * (1 << 18) + "\n")
    (tmp_path / "maybe.py").write_text("if True:\n    from math import sqrt as reward\n")
    for name, field, says in (
        ("folder.py", "path", "a folder or a device"),
        ("broken.py", "path", "line 1"),
        ("zeros.py", "path", "null bytes"),
        ("other.py", "function", "has Judge, limit, math, score"),
        ("large.py", "path", "262144 bytes"),
    ):
        error = await refused({"name": "python_file", "path": str(tmp_path / name)}, tmp_path)
        assert (error.field, says in error.message + error.detail) == (f"reward_functions[1].{field}", True), name
    with pytest.raises(NotFound):
        await check_reward_functions(parameters({"name": "python_file", "path": str(tmp_path / "no.py")}), (tmp_path,))
    await check_reward_functions(parameters({"name": "python_file", "path": str(tmp_path / "maybe.py")}), (tmp_path,))


def dataset_of(path: Path, dataset_format: wire.DatasetFormat, *records: dict[str, Any]) -> wire.DatasetFile:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return wire.DatasetFile(
        filename=path.name, path=str(path), sha256="", format=dataset_format, num_examples=len(records)
    )


def test_a_field_that_a_record_has_not_is_refused_with_its_line(tmp_path: Path) -> None:
    said = [{"input": "1", "output": "2", "hint": 3}, {"input": "2", "output": "4"}, {"input": "3", "output": {}}]
    dataset = dataset_of(tmp_path / "a", "input_output", *said)
    with pytest.raises(BadInput, match="Line 2 of the dataset") as refusal:
        check_fields(dataset, parameters("exact_match", {"name": "exact_match", "field": "hint"}))
    assert refusal.value.field == "reward_functions[1].field"
    assert "'answer'" in refusal.value.detail
    with pytest.raises(BadInput, match="Line 3 of the dataset: there is no text or number in a field 'answer'"):
        check_fields(dataset, parameters("exact_match", "format_tags"))  # its output is the answer
    check_fields(dataset, parameters("format_tags"))


def test_an_answer_without_a_number_is_refused_where_numbers_are_compared(tmp_path: Path) -> None:
    said = [{"input": "1", "output": "#### 2"}, {"input": "2", "output": "two"}]
    with pytest.raises(BadInput, match="Line 2 of the dataset: there is no number in the field 'answer'") as refusal:
        check_fields(dataset_of(tmp_path / "a", "input_output", *said), parameters("number_match"))
    assert "exact_match" in refusal.value.detail
    check_fields(dataset_of(tmp_path / "b", "input_output", *said), parameters("exact_match"))
    talk = {"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]}
    check_fields(dataset_of(tmp_path / "c", "messages", talk), parameters("number_match"))
    own = {"prompt": "1", "completion": [{"role": "assistant", "content": "2"}]}
    check_fields(dataset_of(tmp_path / "d", "prompt_completion", own), parameters("number_match"))


def test_prompts_without_answers_have_no_field_of_that_name_unless_they_have(tmp_path: Path) -> None:
    alone = dataset_of(tmp_path / "a", "prompts", {"prompt": "1"})
    with pytest.raises(BadInput, match="in a field 'answer'"):
        check_fields(alone, parameters("exact_match"))
    check_fields(alone, parameters({"name": "length", "max": 9}, {"name": "regular_expression", "pattern": "a"}))
    check_fields(dataset_of(tmp_path / "b", "prompts", {"prompt": "1", "hint": "2"}), parameters("format_tags"))
