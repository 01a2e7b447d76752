"""How much disk a training takes: its checkpoints and its model, in bytes; tokenizer and settings are little beside."""

import math

from msgspec import Struct

from modelforge.admission.estimate.memory import Plan, Sizes, optimizer_bytes


class Disk(Struct, frozen=True, kw_only=True, gc=False):
    """What is written: `checkpoints` at the most at one time, each of `checkpoint` bytes, and the `model`."""

    checkpoint: int
    checkpoints: int
    model: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoint * self.checkpoints + self.model


def disk_of(plan: Plan, sizes: Sizes, examples: int) -> Disk:
    """The estimate. A checkpoint has what is trained and the optimizer's state; an old one goes after the new one."""
    parameters = plan.parameters
    kept = saves_of(plan, examples)
    if parameters.save_total_limit is not None:
        kept = min(kept, parameters.save_total_limit + 1)
    trained = plan.trained_bytes * sizes.trainable
    written = trained + plan.trained_bytes * sizes.twice
    rewards = plan.compute_bytes * sizes.parameters if plan.strategy == "rlhf" and plan.judged else 0
    # What an adapter took off its base lies beside the checkpoints, and makes the saved one as large again.
    taken = plan.trained_bytes * sizes.adapter if parameters.changes_base and parameters.use_lora else 0
    return Disk(
        checkpoint=written + optimizer_bytes(parameters.optim, sizes, plan.trained_bytes),
        checkpoints=kept,
        model=written + 2 * taken + rewards,
    )


def saves_of(plan: Plan, examples: int) -> int:
    """How often a training saves, its last step included."""
    parameters = plan.parameters
    rows = plan.batch_size * parameters.gradient_accumulation_steps * parameters.num_processes
    in_epoch = max(1, math.ceil(examples / rows))
    epochs = parameters.num_train_epochs or 3.0  # the most that the trainer chooses
    steps = parameters.max_steps if parameters.max_steps > 0 else math.ceil(epochs * in_epoch)
    every = parameters.save_steps
    if parameters.early_stopping_patience is not None:
        every = parameters.eval_steps or in_epoch
    return math.ceil(steps / every)
