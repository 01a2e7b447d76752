"""Which settings of a training go together; what cannot work is refused by name, with what would."""

from modelforge.errors import BadInput
from trainer_entry import wire


def check_combination(
    task: wire.Task, strategy: wire.Strategy, provider: wire.Provider, parameters: wire.TrainingParameters
) -> None:
    """Refuse what this release cannot train, and settings that contradict each other.

    Raises:
        BadInput: `field` is the setting to change.
    """
    _check_built(task, strategy, provider)
    _check_quantisation(strategy, parameters)
    if parameters.bf16 and parameters.fp16:
        raise _conflict("bf16", "fp16", "Set at most one of them; with neither, the machine decides.")
    if parameters.max_seq_length == 0:
        raise BadInput(
            "max_seq_length cannot be 0", "Leave it out for the model's own maximum.", field="max_seq_length"
        )
    if parameters.max_steps == 0:
        raise BadInput("max_steps cannot be 0", "Leave it out to train for num_train_epochs.", field="max_steps")
    if not parameters.eval_split:
        for name in ("eval_steps", "early_stopping_patience"):
            if getattr(parameters, name) is not None:
                raise _conflict(name, "eval_split 0", f'Send "eval_split": 0.1 too, or leave out {name}.')
    if parameters.num_processes > 1:
        raise BadInput(
            "Training in several processes is not built in this release",
            'Leave out num_processes, or send "num_processes": 1.',
            field="num_processes",
        )


def _check_built(task: wire.Task, strategy: wire.Strategy, provider: wire.Provider) -> None:
    if strategy in {"dpo", "rlhf"} and task == "extractive-question-answering":
        raise _conflict(
            f"strategy {strategy}",
            f"task {task}",
            'Preferences are between generated texts: use "sft".',
            "strategy",
        )
    if provider == "unsloth" and task != "text-generation":
        raise _conflict(
            "provider unsloth", f"task {task}", 'It trains causal models only: use "huggingface".', "provider"
        )
    for name, value, built in (
        ("task", task, ("text-generation",)),
        ("strategy", strategy, ("sft", "qlora")),
        ("provider", provider, ("huggingface",)),
    ):
        if value not in built:
            choice = " or ".join(f'"{one}"' for one in built)
            raise BadInput(f"The {name} {value!r} is known but not built in this release", f"Use {choice}.", field=name)


def _check_quantisation(strategy: wire.Strategy, parameters: wire.TrainingParameters) -> None:
    if parameters.use_4bit and parameters.use_8bit:
        raise _conflict("use_4bit", "use_8bit", "Weights are loaded in one precision: set one of them.")
    if strategy == "qlora":
        if parameters.use_4bit is False and not parameters.use_8bit:
            raise _conflict(
                "use_4bit false",
                "strategy qlora",
                'QLoRA trains on quantised weights: leave it out, send "use_8bit": true, or use "sft".',
                "use_4bit",
            )
        if not parameters.use_lora:
            raise _conflict(
                "use_lora false",
                "strategy qlora",
                'Quantised weights cannot be trained: use "sft".',
                "use_lora",
            )
        return
    for name, wanted in (("use_4bit", parameters.use_4bit), ("use_8bit", parameters.use_8bit)):
        if wanted:
            raise _conflict(name, f"strategy {strategy}", 'Use "strategy": "qlora".', name)


_TUNED: tuple[wire.Strategy, ...] = ("sft", "qlora")
_TRAINS: dict[wire.DatasetFormat, tuple[tuple[wire.Task, ...], tuple[wire.Strategy, ...]]] = {
    "input_output": (("text-generation", "summarization"), _TUNED),
    "messages": (("text-generation",), _TUNED),
    "document_summary": (("summarization",), _TUNED),
    "article_highlights": (("summarization",), _TUNED),
    "question_answer": (("extractive-question-answering",), _TUNED),
    "squad": (("extractive-question-answering",), _TUNED),
    "preferences": (("text-generation", "summarization"), ("dpo", "rlhf")),
}
"""The tasks and strategies that the records of a format can be trained on for."""


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


def _suits(dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None) -> bool:
    tasks, strategies = _TRAINS[dataset_format]
    return (task is None or task in tasks) and (strategy is None or strategy in strategies)


def _conflict(one: str, other: str, remedy: str, field: str | None = None) -> BadInput:
    return BadInput(f"{one} and {other} do not go together", remedy, field=field or one)
