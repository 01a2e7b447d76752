"""The whole check of one file: what it is, its records, its hash, and what is to be reported of it."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelforge.datasets.validation.columns import PUT_ASIDE, Columns, columns_of
from modelforge.datasets.validation.conversion import Converted, Origins, convert
from modelforge.datasets.validation.duplicates import Duplicate
from modelforge.datasets.validation.error_types import UnreadableFile
from modelforge.datasets.validation.field_names import plain_name, says_nothing
from modelforge.datasets.validation.file_formats import FileFormat, detect_file_format, sample_record
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.line_validator import LISTED
from modelforge.datasets.validation.packed_files import most_unpacked, unpacked
from modelforge.datasets.validation.parallel import ParallelValidation, ValidatedLines
from modelforge.datasets.validation.parquet_rows import columns_not_read
from modelforge.datasets.validation.protocol import CheckProgress, CheckRequest, DatasetCheck
from modelforge.datasets.validation.readings import read_columns
from modelforge.datasets.validation.recognition import EXPECTED
from modelforge.datasets.validation.text_encoding import ENCODINGS, guess_encoding
from modelforge.datasets.validation.usual_names import USUALLY_READ
from modelforge.datasets.validation.values_as_texts import ValuesAsTexts
from modelforge.errors import DatasetReport, LineError
from trainer_entry import wire


def check(request: CheckRequest, on_progress: Callable[[CheckProgress], None]) -> DatasetCheck:
    """Read a file once, and again what has to be compared; `on_progress` gets how far that is, twice a second.

    Raises:
        OSError: it cannot be read, or the disk is full.
    """
    path = Path(request.path)
    before = path.stat()
    request = msgspec.structs.replace(request, limit=most_unpacked(before.st_size, request.limit))
    found = _check(path, before.st_size, request, on_progress)
    after = path.stat()
    if (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns):
        return found
    changed = LineError(1, None, "The file changed while it was read; try again when nobody writes to it.")
    report = DatasetReport(valid=False, errors=(changed,), error_count=1)
    return msgspec.structs.replace(found, report=report)


def _check(path: Path, size: int, request: CheckRequest, on_progress: Callable[[CheckProgress], None]) -> DatasetCheck:
    columns, digest = Columns(request.columns), _Digest(path, request.sha256)
    try:
        kind = detect_file_format(path, request.filename, request.limit, columns, request.encoding)
        if kind.container != "parquet" and kind.encoding is None and (columns or not kind.is_plain):
            kind = _with_guess(path, kind, request)
    except UnreadableFile as unusable:
        refused = Converted()
        refused.add_error(unusable.line, None, unusable.message)
        return _result(request, size, digest, FileFormat("jsonl", None), None, refused, columns)
    sample: object = None
    if not columns:
        sample = sample_record(path, kind, request.limit)
        columns = read_columns(sample)
        if columns and kind.is_plain:
            kind = _with_guess(path, kind, request)
    as_texts: ValuesAsTexts | None = None
    if kind.is_plain and not columns:
        validated = _validate(path, request, digest, on_progress)
        if validated.found.not_utf8:
            kind = _with_guess(path, kind, request)
            sample = sample_record(path, kind, request.limit)
            columns = read_columns(sample)
        as_texts = _texts_to_make(validated)
        columns = _columns_of_all(columns, sample, validated)
        if kind.is_plain and as_texts is None and not columns:
            return _result(request, size, digest, kind, validated, None, columns)

    def report_written(done: int) -> None:
        on_progress(CheckProgress(stage="unpacking", done_bytes=done, total_bytes=None))

    records, origins = Path(request.records), Path(request.scratch) / "origins"
    while True:
        digest.wait()  # no thread of it is left when processes are forked again
        converted = convert(path, request, kind, columns, origins, report_written, as_texts)
        validated = _validate(records, request, digest, on_progress)
        of_all = _columns_of_all(columns, sample, validated)
        if of_all is not columns:
            columns, sample, as_texts = of_all, None, None  # once: it is known now what columns there are
        elif as_texts is not None or (as_texts := _texts_to_make(validated)) is None:
            break
    validated = _traced(validated, Origins(origins))
    if kind.container == "parquet" and not converted.error_count:
        converted.notes.ignored.update(columns_not_read(path, columns))
    return _result(request, size, digest, kind, validated, converted, columns)


def _columns_of_all(columns: Columns, sample: object, validated: ValidatedLines) -> Columns:
    """How the records are read in view of the columns that only later ones have; nothing else where these are given.

    `sample`: what the first records have; None where it is known how they are read.
    """
    seen = {name.removesuffix(PUT_ASIDE): value for name, value in validated.found.glimpses.items()}
    later = {
        name: value
        for name, value in seen.items()
        if isinstance(sample, dict) and says_nothing(sample.get(name)) and not says_nothing(value)
    }
    if not later or not isinstance(sample, dict):
        return columns
    found = read_columns({**sample, **later})
    return columns if found.given == columns.given else found


def _texts_to_make(validated: ValidatedLines) -> ValuesAsTexts | None:
    """What makes texts of the numbers that were found in their place; None where there was none."""
    if validated.format is None or not validated.found.not_texts:
        return None
    return ValuesAsTexts(validated.format)


def _with_guess(path: Path, kind: FileFormat, request: CheckRequest) -> FileFormat:
    """The kind of a file with the encoding that its text has, if it is no UTF-8 and was not said to be anything."""
    if request.encoding is not None:
        return kind
    with unpacked(path, kind.compression, request.limit) as file:
        encoding = guess_encoding(file)
    if encoding is None:
        return kind
    return detect_file_format(path, request.filename, request.limit, Columns(request.columns), encoding)


class _Digest:
    """The SHA-256 of a file, made beside the check: hashing holds up no interpreter."""

    def __init__(self, path: Path, known: str | None) -> None:
        self._path = path
        self._found = known
        self._failed: OSError | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. No process may be forked from now on."""
        if self._found is None:
            self._thread = threading.Thread(target=self._make, daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for it if it was begun."""
        if self._thread is not None:
            self._thread.join()

    def hexdigest(self) -> str:
        """Wait for it.

        Raises:
            OSError: the file cannot be read.
        """
        self.wait()
        if self._found is None and self._failed is None:
            self._make()
        if self._failed is not None:
            raise self._failed
        return self._found or ""

    def _make(self) -> None:
        try:
            with self._path.open("rb") as file:
                self._found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            self._failed = error


def _validate(
    records: Path, request: CheckRequest, digest: _Digest, on_progress: Callable[[CheckProgress], None]
) -> ValidatedLines:
    validation = ParallelValidation(records, Path(request.scratch))
    digest.start()
    return validation.finish(
        lambda done, total: on_progress(CheckProgress(stage="checking", done_bytes=done, total_bytes=total))
    )


def _traced(validated: ValidatedLines, origins: Origins) -> ValidatedLines:
    """The findings by the lines of the file that the records were made of."""
    found, duplicates = validated.found, validated.duplicates
    found.errors = [origins.traced(error) for error in found.errors]
    found.warnings = [origins.traced(warning) for warning in found.warnings]
    found.carriage_return, validated.unfinished_end = None, False
    listed = tuple(
        Duplicate(origins.line(twice.line), origins.line(twice.first_line), exact=twice.exact)
        for twice in duplicates.listed
    )
    validated.duplicates = msgspec.structs.replace(duplicates, listed=listed)
    return validated


def _result(
    request: CheckRequest,
    size: int,
    digest: _Digest,
    kind: FileFormat,
    validated: ValidatedLines | None,
    converted: Converted | None,
    columns: Columns,
) -> DatasetCheck:
    notes = converted.notes if converted is not None else FileNotes()
    errors = [*(converted.errors if converted is not None else ()), *(validated.found.errors if validated else ())]
    error_count = (converted.error_count if converted is not None else 0) + (
        validated.found.error_count if validated is not None else 0
    )
    num_examples = validated.found.records if validated is not None else 0
    if not num_examples and not error_count:
        lines = validated.found.lines if validated is not None else 1
        errors, error_count = [LineError(max(1, lines), None, f"The file has no record. {EXPECTED}")], 1
    warnings, warning_count = (
        _warnings(kind, validated, notes, columns, is_guess=request.encoding is None)
        if validated is not None
        else ([], 0)
    )
    return DatasetCheck(
        format=validated.format if validated is not None else None,
        container=kind.container,
        compression=kind.compression,
        num_examples=num_examples,
        size_bytes=size,
        sha256=digest.hexdigest(),
        records_sha256=converted.sha256 if converted is not None else None,
        records_bytes=converted.size if converted is not None else None,
        columns=_columns(validated, columns, notes),
        has_tools=validated is not None and validated.found.has_tools,
        report=DatasetReport(
            valid=not error_count,
            errors=tuple(sorted(errors, key=lambda error: error.line)[:LISTED]),
            error_count=error_count,
            warnings=tuple(warnings),
            warning_count=warning_count,
        ),
    )


def _columns(validated: ValidatedLines | None, columns: Columns, notes: FileNotes) -> wire.FieldNames:
    """The fields by the names of the file's columns."""
    if validated is None:
        return wire.FieldNames()
    used = {column for name in validated.found.used for column in columns_of(columns.given.get(name, name))}
    ignored = {name.removesuffix(PUT_ASIDE) for name in validated.found.ignored}
    return wire.FieldNames(
        used=tuple(sorted(used)),
        ignored=tuple(sorted({*ignored, *notes.ignored} - used)),
        mapping=columns.given or None,
    )


def _warnings(
    kind: FileFormat, validated: ValidatedLines, notes: FileNotes, columns: Columns, *, is_guess: bool
) -> tuple[list[LineError], int]:
    """The warnings of the file, and then of its records, in the order of the lines."""
    found, duplicates = validated.found, validated.duplicates
    of_file: list[LineError] = []
    if kind.encoding is not None and is_guess:
        name = ENCODINGS.get(kind.encoding, kind.encoding)
        of_file.append(LineError(1, None, f"The file was read as {name}; if that is wrong, send its encoding with it."))
    if kind.bom and kind.encoding is None:
        of_file.append(LineError(1, None, "The file begins with a byte order mark, which is passed over."))
    if columns.inferred and columns.given:
        mapping = msgspec.json.encode(columns.given).decode()
        of_file.append(
            LineError(1, None, f"The columns are read as {mapping}; if that is wrong, send columns with it.")
        )
    of_file += notes.warnings
    of_file += [
        LineError(1, name, "Records have this field, and it is not read: it is none of their format.")
        for name in sorted({*found.ignored, *notes.ignored} - {warning.field for warning in notes.warnings})
        if plain_name(name) in USUALLY_READ and (name in notes.ignored or not says_nothing(found.glimpses.get(name)))
    ]
    if found.carriage_return is not None:
        of_file.append(LineError(found.carriage_return, None, "Lines end with CR LF, as on Windows; that is no harm."))
    if validated.unfinished_end:
        of_file.append(LineError(max(1, found.lines), None, "The last line has no end: was the file cut off there?"))
    again = [
        LineError(
            twice.line,
            None,
            f"The record is the same as on line {twice.first_line}{'' if twice.exact else ', but for whitespace'}.",
        )
        for twice in duplicates.listed
    ]
    count = len(of_file) + found.warning_count + duplicates.exact + duplicates.but_for_whitespace
    of_records = sorted([*found.warnings, *again], key=lambda warning: warning.line)
    return [*of_file, *of_records][:LISTED], count
