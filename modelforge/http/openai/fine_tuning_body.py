"""What OpenAI's clients ask of a fine-tuning job."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from modelforge.admission.training import Metadata
from trainer_entry import wire

LONGEST_SUFFIX = 64
Auto = Literal["auto"]
MethodType = Literal["supervised", "dpo", "reinforcement"]


class Hyperparameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`learning_rate_multiplier` multiplies the learning rate that the strategy has by default."""

    n_epochs: Auto | Annotated[float, Meta(gt=0, le=10_000)] = "auto"
    batch_size: Auto | Annotated[int, Meta(ge=1, le=4096)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Meta(gt=0, le=1000)] = "auto"


class PreferenceHyperparameters(Hyperparameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of direct preference optimization."""

    beta: Auto | Annotated[float, Meta(ge=0, le=100)] = "auto"


class ReinforcementHyperparameters(Hyperparameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of reinforcement; but for the first three they are not kept, and refused unless they say nothing."""

    compute_multiplier: Any = None
    eval_interval: Any = None
    eval_samples: Any = None
    reasoning_effort: Any = None


class Grader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grader; those that are kept are of the type `string_check`. `name` is a label."""

    type: Literal["string_check", "text_similarity", "python", "score_model", "label_model", "multi", "endpoint"]
    name: str | UnsetType = UNSET
    input: Any = None
    reference: Any = None
    operation: Any = None
    evaluation_metric: Any = None
    source: Any = None
    image_tag: Any = None
    model: Any = None
    range: Any = None
    sampling_params: Any = None
    graders: Any = None
    calculate_output: Any = None


class WandbIntegration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run at Weights & Biases. `entity`: whose it is says the key that the server has, so it is refused."""

    project: wire.TrackerName
    name: wire.TrackerName | None = None
    entity: str | None = None
    tags: Annotated[tuple[wire.TrackerTag, ...], Meta(max_length=32)] | None = None


class Integration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told a job's figures."""

    type: Literal["wandb"] = "wandb"
    wandb: WandbIntegration


class Supervised(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from answers."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Preferences(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from preferences."""

    hyperparameters: PreferenceHyperparameters = PreferenceHyperparameters()


class Reinforcement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from rewards."""

    grader: Grader | None = None
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: Any = None


class Method(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train; beside the type stands the object of its name."""

    type: MethodType
    supervised: Supervised | None = None
    dpo: Preferences | None = None
    reinforcement: Reinforcement | None = None


class ModelForgeOptions(wire.TrainingParameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What OpenAI's fields cannot say: everything that `start_training` takes beside them."""

    task: wire.Task = "text-generation"
    provider: wire.Provider = "huggingface"
    strategy: wire.Strategy | None = None
    max_restarts: Annotated[int, Meta(ge=0, le=100)] = 0
    cluster: wire.ClusterRequest | None = None


class FineTuningBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fine-tuning job. `suffix` is the name of the trained model."""

    model: Annotated[str, Meta(min_length=1, max_length=4000)]
    training_file: Annotated[str, Meta(min_length=1, max_length=1000)]
    validation_file: Annotated[str, Meta(max_length=1000)] | None = None
    suffix: Annotated[str, Meta(max_length=LONGEST_SUFFIX)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Meta(max_length=1)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    modelforge: ModelForgeOptions | None = None
