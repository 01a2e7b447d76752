"""What rewards a policy: a reward model, functions, or both; which of them there are follows from the records."""

from modelforge.errors import BadInput
from trainer_entry import wire
from trainer_entry.wire.obstacles import in_reward_functions

_PREFERENCES: wire.DatasetFormat = "preferences"


def check_rewards(strategy: wire.Strategy, dataset: wire.DatasetFile, parameters: wire.TrainingParameters) -> None:
    """Refuse a policy that nothing would reward, and parameters for a reward model that is not trained.

    Preferences train a reward model unless one is given. Prompts train none: functions reward, or a model that is
    given, or both.

    Raises:
        BadInput: `field` is the setting to change.
    """
    if strategy != "rlhf":
        return
    prefers = dataset.format == _PREFERENCES
    beside = prefers or parameters.reward_model is not None
    if not beside and parameters.reward_functions is None:
        raise BadInput(
            f"Nothing would reward a policy: the format {dataset.format} has no preferences",
            'Send "reward_functions", such as ["exact_match"], or "reward_model", or records of the format '
            f"{_PREFERENCES}, from which a reward model is trained.",
            field="reward_functions",
        )
    if not prefers and parameters.reward_learning_rate is not None:
        raise BadInput(
            f"reward_learning_rate is for a reward model, and the format {dataset.format} trains none",
            f"Leave it out, or send records of the format {_PREFERENCES}.",
            field="reward_learning_rate",
        )
    if not prefers and dataset.has_tools:
        raise BadInput(
            "A policy calls no tools, and the dataset has some",
            'Send records without tools and calls, or use "sft".',
            field="dataset",
        )
    found = in_reward_functions(parameters, beside_a_model=beside)
    if found is not None:
        raise BadInput(found.message, found.remedy, field=found.field)
