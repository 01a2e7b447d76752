"""Which settings of a training go together, and what is said of those that do not."""

import pytest

from modelforge.domain.combinations import check_format
from modelforge.errors import BadInput
from trainer_entry import wire

QA: wire.Task = "extractive-question-answering"


@pytest.mark.parametrize(
    ("dataset_format", "task", "strategy"),
    [
        ("input_output", "text-generation", "sft"),
        ("messages", "text-generation", "qlora"),
        ("input_output", "summarization", "qlora"),
        ("document_summary", "summarization", "sft"),
        ("article_highlights", "summarization", "qlora"),
        ("question_answer", QA, "sft"),
        ("squad", QA, "qlora"),
        ("preferences", "text-generation", "dpo"),
        ("preferences", "summarization", "rlhf"),
        ("preferences", "text-generation", None),
        ("preferences", None, "dpo"),
        ("squad", None, None),
    ],
)
def test_a_dataset_is_taken_for_what_its_records_are_made_for(
    dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None
) -> None:
    check_format(dataset_format, task, strategy)


@pytest.mark.parametrize(
    ("dataset_format", "task", "strategy", "says"),
    [
        ("preferences", "text-generation", "sft", "input_output or messages"),
        ("input_output", "text-generation", "dpo", "preferences"),
        ("messages", "summarization", "sft", "input_output or document_summary or article_highlights"),
        ("document_summary", "text-generation", "sft", "summarization"),
        ("article_highlights", "summarization", "rlhf", "preferences"),
        ("input_output", QA, "sft", "question_answer or squad"),
        ("squad", "text-generation", "qlora", QA),
        ("preferences", QA, None, "text-generation or summarization"),
        ("squad", None, "dpo", "sft or qlora"),
    ],
)
def test_a_dataset_for_something_else_is_refused_with_what_would_do(
    dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None, says: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_format(dataset_format, task, strategy)
    assert refusal.value.field == "dataset"
    assert dataset_format in refusal.value.message
    assert says in refusal.value.detail
