"""A preview or the statistics of a dataset, as a model would read it in a training; or only whether it could.

    python -m trainer_entry.dataset_view

One request (trainer_entry.wire.AnyDatasetViewRequest) comes in on stdin as JSON, and the answer goes out on stdout. The
exit code is 0, or 3 with a `PreviewFailed`, which says why there is none. No weights are loaded, and no GPU is touched.
The model's chat template is a stranger's program: its process is this one, which the system ends at the deadline, and
holds to so much memory beyond what the libraries take.
"""

import os
import signal
import sys
import traceback
from typing import assert_never

import msgspec

from trainer_entry.data.records import read_lines
from trainer_entry.providers.libraries import hide_all
from trainer_entry.runtime.bounds import go_first, limit_memory
from trainer_entry.runtime.failures import kind_of, message_of
from trainer_entry.runtime.imports import importing
from trainer_entry.runtime.secrets import claim_secrets
from trainer_entry.runtime.stdout import claim_stdout
from trainer_entry.wire import (
    PREVIEW_FAILED,
    AnyDatasetViewRequest,
    DatasetPreview,
    DatasetStatistics,
    JobSpec,
    PreviewFailed,
    PreviewRequest,
    StatisticsRequest,
    Trial,
    TrialRequest,
)

_MEMORY = 2 << 30
"""The largest vocabularies take a quarter of it, and a chat template may take half."""


def main() -> int:
    """Answer one request."""
    stdout = claim_stdout()  # before any import that could print
    claim_secrets()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyDatasetViewRequest)
    signal.setitimer(signal.ITIMER_REAL, request.deadline_seconds)  # nobody else may be there to end it
    go_first()
    _prepare_process(request.job)
    reply: DatasetPreview | DatasetStatistics | Trial | PreviewFailed
    code = 0
    try:
        reply = answer(request)
    except Exception as error:  # noqa: BLE001 - a failure is an answer
        traceback.print_exc()
        reply, code = PreviewFailed(kind=kind_of(error), message=message_of(error)), PREVIEW_FAILED
    with os.fdopen(stdout, "wb") as file:
        file.write(msgspec.json.encode(reply))
    return code


def answer(request: AnyDatasetViewRequest) -> DatasetPreview | DatasetStatistics | Trial:
    """What was asked for.

    Raises:
        ModelUnavailable: the model is not to be had, not to be read, or not for the task.
        NoChatTemplate: the records are conversations, and the model does not say how to write one.
        ChatTemplateFails: the model's template cannot write one of them.
        TokenWithoutEmbedding, NoTrainableTokens, NoSuchLayers, NotTrainedWhole: a training would fail at that.
    """
    from trainer_entry.preview.examples import examples_of
    from trainer_entry.preview.sequences import tokenization_context

    context, dataset = tokenization_context(request.job), request.job.dataset
    match request:
        case PreviewRequest(limit=limit):
            from trainer_entry.preview.render import first_lines, preview_of

            return preview_of(request, context, list(first_lines(read_lines(dataset), limit)))
        case StatisticsRequest(sample=sample):
            from trainer_entry.preview.length_statistics import places_of, statistics_of

            lines = read_lines(dataset, places_of(dataset.num_examples, sample))
            return statistics_of(examples_of(lines, context), context, dataset, request.revision)
        case TrialRequest(sample=sample):
            from trainer_entry.preview.trial import places_of as places_tried
            from trainer_entry.preview.trial import try_out

            return try_out(
                examples_of(read_lines(dataset, places_tried(dataset.num_examples, sample)), context), context
            )
        case _:
            assert_never(request)


def _prepare_process(job: JobSpec) -> None:
    """What the libraries read from the environment, what they would say, and, once they are there, the limit."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    hide_all()
    with importing():
        import torch
        from transformers.utils.logging import disable_progress_bar

        # What they import is no part of what is limited.
        from trainer_entry.preview import examples, sequences  # noqa: F401

        if job.strategy in {"dpo", "rlhf"}:
            from trainer_entry.preview import preferences  # noqa: F401
    torch.set_num_threads(1)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    limit_memory(_MEMORY)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # no library's teardown may hold up the server
