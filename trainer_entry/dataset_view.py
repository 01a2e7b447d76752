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
from pathlib import Path
from typing import assert_never

import msgspec

from trainer_entry.data.records import read_lines
from trainer_entry.runtime.failures import kind_of, message_of
from trainer_entry.runtime.stdout import claim_stdout
from trainer_entry.wire import (
    PREVIEW_FAILED,
    AnyDatasetViewRequest,
    DatasetPreview,
    DatasetStatistics,
    PreviewFailed,
    PreviewRequest,
    StatisticsRequest,
)


def main() -> int:
    """Look once."""
    stdout = claim_stdout()  # before any import that could print
    look = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyDatasetViewRequest)
    signal.setitimer(signal.ITIMER_REAL, look.deadline_seconds)  # nobody else may be there to end it
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, this process goes before any other
    _prepare_process()
    seen: DatasetPreview | DatasetStatistics | PreviewFailed
    code = 0
    try:
        seen = answer(look)
    except Exception as error:  # noqa: BLE001 - a failure is an answer
        traceback.print_exc()
        seen, code = PreviewFailed(kind=kind_of(error), message=message_of(error)), PREVIEW_FAILED
    with os.fdopen(stdout, "wb") as file:
        file.write(msgspec.json.encode(seen))
    return code


def answer(look: AnyDatasetViewRequest) -> DatasetPreview | DatasetStatistics:
    """What was asked for.

    Raises:
        ModelUnavailable: the model is not to be had, not to be read, or not for the task.
        NoChatTemplate: the records are conversations, and the model does not say how to write one.
        ChatTemplateFails: the model's template cannot write one of them.
    """
    from trainer_entry.preview.examples import examples_of
    from trainer_entry.preview.sequences import tokenization_context

    reading, dataset = tokenization_context(look.job), look.job.dataset
    match look:
        case PreviewRequest(limit=limit):
            from trainer_entry.preview.render import first_lines, preview_of

            return preview_of(look, reading, list(first_lines(read_lines(dataset), limit)))
        case StatisticsRequest(sample=sample):
            from trainer_entry.preview.length_statistics import places_of, statistics_of

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


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # no library's teardown may hold up the server
