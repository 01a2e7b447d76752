"""What datasets are for: the tasks and strategies that the records of a format can be trained on for."""

from msgspec import Struct

from modelforge.errors import BadInput
from trainer_entry import wire

TUNED: tuple[wire.Strategy, ...] = ("sft", "qlora")
"""Those that tune a model on what it is to write."""
_ANSWERED: tuple[wire.Strategy, ...] = (*TUNED, "rlhf")
"""Those for prompts with answers: what a policy says is compared with them, where functions reward it."""
_TRAINS: dict[wire.DatasetFormat, tuple[tuple[wire.Task, ...], tuple[wire.Strategy, ...]]] = {
    "input_output": (("text-generation", "summarization"), _ANSWERED),
    "prompt_completion": (("text-generation",), _ANSWERED),
    "alpaca": (("text-generation",), _ANSWERED),
    "messages": (("text-generation",), _ANSWERED),
    "conversations": (("text-generation",), _ANSWERED),
    "text": (("text-generation",), TUNED),
    "document_summary": (("summarization",), _ANSWERED),
    "article_highlights": (("summarization",), _ANSWERED),
    "question_answer": (("extractive-question-answering",), TUNED),
    "squad": (("extractive-question-answering",), TUNED),
    "preferences": (("text-generation", "summarization"), ("dpo", "rlhf")),
    "prompts": (("text-generation", "summarization"), ("rlhf",)),
}
"""The tasks and strategies that the records of a format can be trained on for."""


def trainable(dataset_format: wire.DatasetFormat) -> tuple[tuple[wire.Task, ...], tuple[wire.Strategy, ...]]:
    """The tasks, and the strategies, that records of a format can be trained on for."""
    return _TRAINS[dataset_format]


def check_format(
    dataset_format: wire.DatasetFormat,
    task: wire.Task | None,
    strategy: wire.Strategy | None,
    field: str = "dataset",
) -> None:
    """Refuse a dataset whose records have not what a training needs; None: whichever suits. `field` named it.

    Raises:
        BadInput: it says which formats would do, and what this one is for.
    """
    if _suits(dataset_format, task, strategy):
        return
    wanted = " with ".join(filter(None, (task, strategy)))
    others = [name for name in _TRAINS if _suits(name, task, strategy)]
    tasks, strategies = _TRAINS[dataset_format]
    remedy = f"Records for {wanted} have the format {' or '.join(others)}; " if others else ""
    raise BadInput(
        f"A dataset of the format {dataset_format} cannot be used for {wanted}",
        f"{remedy}{dataset_format} is for {' or '.join(tasks)}, with {' or '.join(strategies)}.",
        field=field,
    )


class Purpose(Struct, frozen=True, gc=False):
    """What a model is to be trained for, and with what."""

    task: wire.Task
    strategy: wire.Strategy
    provider: wire.Provider


def purpose_of(
    dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None, provider: wire.Provider
) -> Purpose:
    """What a dataset is trained on for, where a task or a strategy was not named: the first that its format serves.

    Raises:
        BadInput: it serves not the one that was named; `field` is that one.
    """
    tasks, strategies = trainable(dataset_format)
    check_format(dataset_format, task, None, "task")
    check_format(dataset_format, None, strategy, "strategy")
    return Purpose(task or tasks[0], strategy or strategies[0], provider)


def _suits(dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None) -> bool:
    tasks, strategies = _TRAINS[dataset_format]
    return (task is None or task in tasks) and (strategy is None or strategy in strategies)
