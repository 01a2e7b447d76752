"""A file is the same however it is cut: into many lines at once, one by one, or over several processes."""

import itertools
import json
import re
import tempfile
import threading
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.checked import checked

from modelforge.datasets.validation.duplicates import Numbers
from modelforge.datasets.validation.line_validator import Findings, LineValidator
from modelforge.datasets.validation.lines import Chunk, chunks
from modelforge.datasets.validation.parallel import ParallelValidation
from modelforge.datasets.validation.pipeline import check
from modelforge.datasets.validation.protocol import CheckRequest
from trainer_entry import wire

texts = st.text(max_size=8) | st.sampled_from(["a", "a ", " a", "a  b", "a b", "", "\n", "\x07", "\ufffd", "é"])
roles = st.sampled_from(["system", "user", "assistant", "bot"])
rare: dict[str, st.SearchStrategy[object]] = {"weight": st.sampled_from([0, 1, None]), "name": texts}
turns = st.lists(st.fixed_dictionaries({"role": roles, "content": texts}, optional=rare), max_size=4) | st.lists(
    st.fixed_dictionaries({"role": roles, "content": texts}), max_size=4
)
shared = st.lists(st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system"]), "value": texts}))
beside: dict[str, st.SearchStrategy[object]] = {"system": texts | st.none()}
records = (
    st.fixed_dictionaries({"input": texts, "output": texts}, optional=beside | {"label": st.booleans() | st.none()})
    | st.fixed_dictionaries({"instruction": texts, "output": texts}, optional=beside | {"input": texts | st.none()})
    | st.fixed_dictionaries({"messages": turns}, optional=beside)
    | st.fixed_dictionaries({"conversations": shared | turns}, optional=beside)
    | st.fixed_dictionaries({"text": texts})
    | st.fixed_dictionaries({"prompt": texts | turns, "completion": texts | turns}, optional=beside)
    | st.fixed_dictionaries({"prompt": texts | turns, "chosen": texts | turns, "rejected": texts}, optional=beside)
    | st.fixed_dictionaries({"document": texts, "summary": texts})
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Lines of records, mostly of one format, with some that are none."""
    some = draw(st.lists(records, min_size=1, max_size=3))
    lines = [
        json.dumps(draw(st.sampled_from(some) | records), ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
        for _ in range(draw(st.integers(0, 12)))
    ]
    for odd in draw(st.lists(st.sampled_from([b"", b"  ", b"{", b"[1]", b"\xff", b'{"input":"\\ud800"}']), max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), odd)
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    return end.join(lines) + draw(st.sampled_from([b"", end]))


def findings(parts: list[Chunk], dataset_format: wire.DatasetFormat | None, folder: Path) -> Findings:
    with (folder / "numbers").open("wb") as out:
        examination = LineValidator(dataset_format, Numbers(out))
        for part in parts:
            examination.take(part)
    found = examination.findings()
    found.stretches = []
    return found


def one_by_one(data: bytes) -> list[Chunk]:
    return [Chunk(line.start(), line[0]) for line in re.finditer(rb"[^\n]*\n|[^\n]+\Z", data)]


@given(files(), st.sampled_from([None, "input_output", "messages", "conversations", "preferences"]))
@example(b'{"input":"a","output":"\x7f"}\n', "input_output")
def test_many_lines_at_once_are_judged_as_one_by_one(data: bytes, dataset_format: wire.DatasetFormat | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = [Chunk(0, data)] if data else []
        assert findings(whole, dataset_format, folder) == findings(one_by_one(data), dataset_format, folder)


@given(files(), st.lists(st.integers(0, 600), max_size=4))
def test_every_line_is_in_one_stretch_and_no_other(data: bytes, cuts: list[int]) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        bounds = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
        read = b""
        for begin, end in itertools.pairwise(bounds):
            with Path(file.name).open("rb") as part:
                read += b"".join(chunk.data or b"" for chunk in chunks(part, begin, end))
        assert read == data


@settings(max_examples=settings().max_examples // 5)
@given(files())
def test_several_processes_find_what_one_finds(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, alone, together = Path(name) / "file", Path(name) / "alone", Path(name) / "together"
        path.write_bytes(data)
        alone.mkdir()
        together.mkdir()
        one = ParallelValidation(path, alone).finish(lambda _done, _size: None)
        several = ParallelValidation(path, together, stretch=20).finish(lambda _done, _size: None)
        one.found.stretches = several.found.stretches = []
        assert one == several


@given(
    st.lists(st.tuples(st.sampled_from(["a", "a b", "a  b", " a b", "ab" * 30, "ab " * 30, "x"]), texts), max_size=12)
)
def test_a_record_that_stands_twice_is_found_and_no_other(pairs: list[tuple[str, str]]) -> None:
    some = [(one, other) for one, other in pairs if other.strip()]
    data = "".join(json.dumps({"input": one, "output": other}) + "\n" for one, other in some).encode()
    expected: list[tuple[int, int, bool]] = []
    seen: dict[tuple[str, ...], tuple[int, tuple[str, str]]] = {}
    for line, pair in enumerate(some, start=1):
        words = tuple(" ".join(text.split()) for text in pair)
        if words in seen:
            first, said = seen[words]
            expected.append((line, first, said == pair))
        else:
            seen[words] = (line, pair)
    found, _ = checked(data)
    twice = [warning for warning in found.report.warnings if "the same as on line" in warning.message]
    assert [
        (warning.line, f"on line {first}," in warning.message or f"on line {first}." in warning.message)
        for warning, (_, first, _) in zip(twice, expected, strict=True)
    ] == [(line, True) for line, _, _ in expected]
    assert ["whitespace" not in warning.message for warning in twice] == [exact for _, _, exact in expected]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path, ended = tmp_path / "records.jsonl", threading.Event()
    line = b'{"input": "a", "output": "b"}\n'
    path.write_bytes(line * 100_000)

    def write_on() -> None:
        with path.open("ab") as file:
            while not ended.wait(0.001):
                file.write(line)
                file.flush()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        question = CheckRequest(
            path=str(path), filename=path.name, records=str(tmp_path / "r"), scratch=str(tmp_path), limit=1 << 30
        )
        found = check(question, lambda _progress: None)
    finally:
        ended.set()
        writer.join()
    assert not found.report.valid
    assert "changed while it was read" in found.report.errors[0].message
    assert check(question, lambda _progress: None).report.valid
