"""Looks at a dataset as a model would see it in a training: its tokens, or how long its records are.

    python -m trainer_entry.dataset_view

One look (trainer_entry.wire.AnyDatasetLook) comes in on stdin as JSON, and what was seen goes out on stdout. The exit
code is 0, or 3 with a `DatasetUnseen`, which says why nothing was seen. No weights are loaded, and no GPU is touched.
The model's chat template is a stranger's program: its process is this one, which the system ends at the deadline.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from trainer_entry.failures import kind_of, message_of
from trainer_entry.records import Line, read_lines
from trainer_entry.stdout import claim_stdout
from trainer_entry.wire import (
    MOST_PREVIEWED_BYTES,
    UNSEEN,
    AnyDatasetLook,
    DatasetPreview,
    DatasetStatistics,
    DatasetUnseen,
    LookAtLengths,
    LookAtRecords,
    PreviewedRecord,
    SeenExample,
    SeenSequence,
    SeenToken,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer_entry.seen_examples import ExampleSeen, Reading

_MOST_TOKENS = 50_000
"""A preview ends after the example in which so many were shown."""


def main() -> int:
    """Look once."""
    stdout = claim_stdout()  # before any import that could print
    look = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyDatasetLook)
    signal.setitimer(signal.ITIMER_REAL, look.deadline_seconds)  # nobody else may be there to end it
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, this process goes before any other
    _prepare_process()
    seen: DatasetPreview | DatasetStatistics | DatasetUnseen
    code = 0
    try:
        seen = answer(look)
    except Exception as error:  # noqa: BLE001 - a failure is an answer
        traceback.print_exc()
        seen, code = DatasetUnseen(kind=kind_of(error), message=message_of(error)), UNSEEN
    with os.fdopen(stdout, "wb") as file:
        file.write(msgspec.json.encode(seen))
    return code


def answer(look: AnyDatasetLook) -> DatasetPreview | DatasetStatistics:
    """What was asked for.

    Raises:
        ModelUnavailable: the model is not to be had, not to be read, or not for the task.
        NoChatTemplate: the records are conversations, and the model does not say how to write one.
        ChatTemplateFails: the model's template cannot write one of them.
    """
    from trainer_entry.seen_examples import examples_of, reading_of

    reading, dataset = reading_of(look.job), look.job.dataset
    match look:
        case LookAtRecords(limit=limit):
            return _preview(look, reading, list(_first(read_lines(dataset), limit)))
        case LookAtLengths(sample=sample):
            from trainer_entry.token_lengths import places_of, statistics_of

            lines = read_lines(dataset, places_of(dataset.num_examples, sample))
            return statistics_of(examples_of(lines, reading), reading, dataset, look.revision)
        case _:
            assert_never(look)


def _prepare_process() -> None:
    """What the libraries read from the environment before they are imported, and what they would say."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(1)
    disable_progress_bar()  # type: ignore[no-untyped-call]


def _first(lines: Iterator[Line], limit: int) -> Iterator[Line]:
    """At most `limit` of the lines, and none after so many bytes that a person cannot read them anyway."""
    size = 0
    for count, line in enumerate(lines, start=1):
        yield line
        size += len(line.content)
        if count == limit or size >= MOST_PREVIEWED_BYTES:
            return


def _preview(look: LookAtRecords, reading: "Reading", lines: list[Line]) -> DatasetPreview:
    from trainer_entry.seen_examples import examples_of

    tokenizer, dataset = reading.source.tokenizer, look.job.dataset
    contents = {line.number: line.content.strip() for line in lines}
    records: list[PreviewedRecord] = []
    shown = 0
    for number, examples in groupby(examples_of(iter(lines), reading), key=lambda example: example.line):
        if shown >= _MOST_TOKENS:
            break
        told: list[SeenExample] = []
        untold = 0
        for example in examples:  # a long context has many windows
            if shown >= _MOST_TOKENS:
                untold += 1
                continue
            told.append(_told(example, tokenizer))
            shown += sum(len(sequence.ids) for sequence in example.sequences)
        record = msgspec.Raw(contents[number])
        records.append(PreviewedRecord(line=number, record=record, examples=tuple(told), more_examples=untold))
    return DatasetPreview(
        filename=dataset.filename,
        revision=look.revision,
        format=dataset.format,
        num_examples=dataset.num_examples,
        records=tuple(records),
        has_more=len(records) < dataset.num_examples,
        seen_with=reading.sight,
    )


def _told(example: "ExampleSeen", tokenizer: "PreTrainedTokenizerBase") -> SeenExample:
    from trainer_entry.token_texts import token_texts

    return SeenExample(
        sequences=tuple(
            SeenSequence(
                name=sequence.name,
                tokens=tuple(
                    SeenToken(id=number, text=text, loss=loss)
                    for number, text, loss in zip(
                        sequence.ids, token_texts(tokenizer, sequence.ids), sequence.loss, strict=True
                    )
                ),
                length=sequence.length,
                start=sequence.start,
                end=sequence.end,
            )
            for sequence in example.sequences
        ),
        left_out=example.left_out,
    )


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # no library's teardown may hold up the server
