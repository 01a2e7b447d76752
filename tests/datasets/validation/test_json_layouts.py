"""Records of JSON files are read as they stand there, and nothing of the file is lost unsaid."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checked import checked

from modelforge.datasets.validation import json_pieces
from modelforge.datasets.validation.error_types import UnreadableFile

A, B, C = ({"input": name, "output": name.upper()} for name in ("a", "b [}", 'c "{'))
SPAN = {"text": "1843", "answer_start": 8}
PARAGRAPH = {"context": "Ada, in 1843.", "qas": [{"question": "When?", "answers": [SPAN], "id": "1"}]}


def read(content: str, filename: str = "data.json") -> list[dict[str, str]]:
    found, records = checked(content.encode(), filename)
    assert found.report.errors == ()
    return [{name: line[name] for name in ("input", "output")} for line in map(json.loads, records.splitlines())]


def refused(content: str, filename: str = "data.json") -> tuple[int, str]:
    found, _ = checked(content.encode(), filename)
    assert not found.report.valid
    return found.report.errors[0].line, found.report.errors[0].message


@pytest.mark.parametrize(
    "before",
    [
        '"version": "1.1"',
        '"version": {"major": 1, "minor": [1, {"a": 2}]}, "info": [1, 2]',
        '"info": [{"by": "me"}], "done": true, "a \\"quote\\"": null',
        '"authors": [], "licence": {}',
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_what_stands_beside_the_records_is_named(before: str, indent: int | None) -> None:
    other = json.loads(f"{{{before}}}")
    for content in (json.dumps({**other, "data": [A, B]}, indent=indent), json.dumps({"rows": [A, B], **other})):
        assert read(content) == [A, B]
        found, _ = checked(content.encode(), "data.jsonl")
        assert {*other} <= {*found.columns.ignored}
        assert found.report.warnings == ()


def test_what_would_matter_in_a_record_is_a_warning_beside_them() -> None:
    found, _ = checked(json.dumps({"data": [A], "system": "Be brief"}, indent=0).encode())
    assert [(warning.line, warning.field) for warning in found.report.warnings] == [(8, "system")]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ('{"train": [R],\n "test": [R]}', 2, "'test' is a list of records beside 'train'"),
        ('{"test": [R],\n "train": [R]}', 1, "'test' is a list of records beside 'train'"),
        ('{"data": [R],\n\n "more": [R, R]}', 3, "'more' is a list of records beside 'data'"),
        ('{"data": [R],\n "data": [R]}', 2, "'data' is a list of records beside 'data'"),
        ('{"data": [R]}\nmore', 2, "Something follows the object"),
        ('{"data": [R]\n}\n{"data": [R]}', 3, "Something follows the object"),
        ('{"data": [R]}\n{"data": [R]}', 2, "Something follows the object"),
        ('{"data": [R]}\n[R]', 2, "Something follows the object"),
        ('{"data": [R]\n', 2, "The object that the list of records stands in is cut off"),
        ('{"data": [R],\n"version": 1', 2, "The object that the list of records stands in is cut off"),
        ('{"data": [R],\n"version": {"a": 1', 2, "The object that the list of records stands in is cut off"),
        ('{"data": [R', 1, "The list of records is cut off"),
        ('{"data": [R],\n"version": 1.1.1}', 2, "Around the list of records is no valid JSON"),
        ('{"data": [R]\n"version": 1}', 2, "After 'data' a comma or a brace is missing"),
        ('{"data": [R],\nversion}', 2, "Around the list of records is no valid JSON"),
        ('{"data": [R]]', 1, "A ] closes what nothing has opened"),
        ('{"data": [R],\n"a": [1}}', 2, "A } closes what nothing has opened"),
        ("[R]\n[R]", 2, "Something follows the list"),
        ("[R,, R]", 1, "A comma, and no record before it"),
        ("[R\nR]", 1, "The record is not valid JSON"),
        ("R,\n,\nR", 2, "A comma, and no record before it"),
    ],
)
def test_nothing_of_a_file_is_lost(content: str, line: int, says: str) -> None:
    at, message = refused(content.replace("R", json.dumps(A)))
    assert (at, message[: len(says)]) == (line, says)


def test_a_second_list_of_other_columns_is_refused_too() -> None:
    content = b'{"data": [{"q": "a", "r": "b"}],\n "more": [{"q": "c", "r": "d"}]}'
    found, _ = checked(content, columns={"input": "q", "output": "r"})
    assert found.report.errors[0].message.startswith("'more' is a list of records beside 'data'")


def test_a_record_with_a_list_is_no_wrapper() -> None:
    record = {**A, "items": [{"input": "x", "output": "y"}]}
    for content in (json.dumps(record), json.dumps(record, indent=1), json.dumps({"items": [1], **A})):
        assert read(content) == [A]
        assert read(f"{content}\n{content}\n", "data.jsonl") == [A, A]
    nested = json.dumps({"items": [{"a": 1}], "question": "a", "reply": "b"})
    found, _ = checked(f"{nested}\n{nested}\n".encode(), columns={"input": "question", "output": "reply"})
    assert found.num_examples == 2


ONE, TWO = json.dumps(A), json.dumps(B)
OPEN, INDENTED = json.dumps(A, indent=2), json.dumps(B, indent="\t")
LAID_OUT = [
    f"[\n{ONE},\n{TWO}\n]\n",
    f"[\n\n{ONE},\n\n{TWO},\n\n]\n\n",
    f"[{ONE},\n{TWO}]",
    f"{ONE},\n{TWO},\n",
    f"{ONE}\n,{TWO}",
    f"{OPEN}\n{INDENTED}\n",
    f"{OPEN},\n{INDENTED},",
    f"{OPEN}{INDENTED}",
    f"{ONE} {TWO}",
    f"{ONE}, {TWO}",
    f"{ONE}{TWO}\n",
    f'{{"data": [{ONE},{TWO}]}}',
    f'{{\n"data": [\n{ONE},\n{TWO}\n]\n}}\n',
    f'{{\n\n  "rows"\n:\n[\n{ONE}\n,\n{TWO}\n]\n,"x":{{"y":[1]}}}}\n',
    f"\n\n{ONE},\n\n{TWO},\n",
    f"{{\n{OPEN[1:]}\n{{\n{INDENTED[1:]}",
    f'{{"input": "a"\n, "output": "A"}}\n{TWO}',
    f'{{"input":\n"a",\n"output":\n"A"}}\n{TWO}',
    f'{{"x":\n{{"y": 1}}, "input": "a", "output": "A"}}\n{TWO}',
]


@pytest.mark.parametrize("content", LAID_OUT)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_records_are_read_however_they_are_laid_out(content: str, end: str, encoding: str) -> None:
    for name in ("data.json", "data.jsonl", "data.txt"):
        found, records = checked(content.replace("\n", end).encode(encoding), name)
        assert found.report.errors == ()
        rows = [json.loads(line) for line in records.splitlines() if line.strip()]
        assert [{name: row[name] for name in A} for row in rows] == [A, B]


@given(
    text=st.one_of(
        st.sampled_from(LAID_OUT),
        st.text(st.sampled_from('{}[],":\\\na1 ')),
    ),
    part=st.integers(1, 20),
    levels=st.integers(0, 2),
)
def test_where_a_part_ends_changes_nothing(text: str, part: int, levels: int) -> None:
    def taken_apart(size: int) -> list[object]:
        found: list[object] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_pieces, "_PART", size)
            try:
                found.extend(json_pieces.pieces(io.BytesIO(text.encode()), levels))
            except UnreadableFile as error:
                found.append((error.line, error.message))
        return found

    assert taken_apart(part) == taken_apart(1 << 20)


SPACES = st.sampled_from(["", " ", "\n", "\r\n", "\n\n\t"])
TEXTS = st.text(st.sampled_from('ab"\\{}[],:\n é中')).map(lambda text: f"x{text}")
LAYOUTS = ("list", "wrapped", "sequence")


@given(
    records=st.lists(st.fixed_dictionaries({"input": TEXTS, "output": TEXTS}), min_size=1, max_size=4),
    layout=st.sampled_from(LAYOUTS),
    spaces=st.lists(SPACES, min_size=8, max_size=8),
    indent=st.sampled_from([None, 0, 2]),
    bom=st.sampled_from(["", "\ufeff"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-16-be"]),
    trailing=st.sampled_from(["", ","]),
)
def test_a_layout_changes_no_record(
    records: list[dict[str, str]],
    layout: str,
    spaces: list[str],
    indent: int | None,
    bom: str,
    encoding: str,
    trailing: str,
) -> None:
    before, after, *between = spaces
    texts = [json.dumps(record, indent=indent, ensure_ascii=False) for record in records]
    within = "".join(f"{text}{between[0]},{between[1]}" for text in texts[:-1]) + texts[-1] + trailing
    if layout == "list":
        content = f"{before}[{between[2]}{within}{between[3]}]{after}"
    elif layout == "wrapped":
        content = f'{before}{{{between[2]}"version":{{"a":[]}},{between[3]}"data":{between[4]}[{within}]{between[5]}}}'
    else:
        content = f"{before}{within}{after}"
    found, lines = checked((bom + content).encode(encoding), "data.json")
    assert found.report.errors == ()
    assert [json.loads(line) for line in lines.splitlines() if line.strip()] == records


def squad(layout: str, *paragraphs: dict[str, object], **more: object) -> bytes:
    articles: list[object] = [{"title": "Ada", "paragraphs": [paragraph]} for paragraph in paragraphs]
    content: object = {"version": "v2.0", "data": articles, **more} if layout == "wrapped" else articles
    return json.dumps(content, indent=1 if layout == "indented" else None).encode()


@pytest.mark.parametrize("layout", ["wrapped", "list", "indented"])
def test_articles_of_squad_are_taken_apart(layout: str) -> None:
    impossible = {"question": "Who?", "id": "2", "answers": [], "is_impossible": True, "plausible_answers": [SPAN]}
    found, records = checked(squad(layout, PARAGRAPH, {**PARAGRAPH, "qas": [impossible]}), "train-v2.0.json")
    assert (found.report.errors, found.format, found.num_examples) == ((), "squad", 2)
    answers = [json.loads(line)["answers"] for line in records.splitlines()]
    assert answers == [{"text": ["1843"], "answer_start": [8]}, {"text": [], "answer_start": []}]
    within = "paragraphs[].qas[]."
    assert {f"{within}id", f"{within}is_impossible", f"{within}plausible_answers", "title"} <= {*found.columns.ignored}
    assert ("version" in found.columns.ignored) == (layout == "wrapped")


@pytest.mark.parametrize(
    ("question", "field", "says"),
    [
        ({"question": "When?"}, "paragraphs[0].qas[0].answers", "The question 'When?' has no 'answers'"),
        (
            {"question": "When?", "answers": [SPAN], "is_impossible": True},
            "paragraphs[0].qas[0].answers",
            "The question 'When?' is_impossible, and has answers",
        ),
        ({"question": "When?", "answers": [SPAN], "label": 1}, "paragraphs[].qas[].label", "It would change what is"),
        ({"question": "When?", "answers": [{"text": "1843"}]}, "paragraphs", "It is no article as SQuAD has them"),
    ],
)
def test_a_question_that_says_two_things_is_refused(question: dict[str, object], field: str, says: str) -> None:
    found, _ = checked(squad("wrapped", PARAGRAPH, {**PARAGRAPH, "qas": [question]}))
    ((error),) = found.report.errors
    assert (error.line, error.field, error.message[: len(says)]) == (1, field, says)


def test_an_object_goes_on_in_a_list_where_its_first_line_ends() -> None:
    turns = '{"messages": [{"role": "user", "content": "a]["},\n{"role": "assistant", "content": "b"}]}\n'
    found, _ = checked((turns * 2).encode())
    assert (found.num_examples, found.report.valid) == (2, True)
    cut, _ = checked(b'{"input": "a",\n{"input": "a", "output": "b"}\n')
    assert [error.line for error in cut.report.errors] == [1]
