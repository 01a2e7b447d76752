"""Learning rates, epochs and beta where none are asked for, by task and strategy."""

from msgspec import Struct

from trainer_entry.wire.job import Strategy, Task


class Defaults(Struct, frozen=True, gc=False):
    """What suits a task and a strategy; sources in trainer_entry/training/defaults.py."""

    adapter_learning_rate: float
    full_learning_rate: float
    epochs: float
    beta: float | None = None


def defaults_of(task: Task, strategy: Strategy, rl_algorithm: str, *, encoder_decoder: bool) -> Defaults:
    """The table in the text of trainer_entry/training/defaults.py."""
    match strategy:
        case "dpo":
            return Defaults(5e-6, 5e-7, 1, beta=0.1)
        case "rlhf":
            return Defaults(1e-5, 1e-6, 1, beta=0.05 if rl_algorithm == "rloo" else 0.04)
        case "sft" | "qlora" if task == "extractive-question-answering":
            return Defaults(5e-4, 3e-5, 2)
        case "sft" | "qlora" if encoder_decoder:
            return Defaults(1e-3, 1e-4, 3)
        case _:
            return Defaults(2e-4, 2e-5, 3)


REWARD_DEFAULTS = Defaults(1e-4, 1e-5, 1)
