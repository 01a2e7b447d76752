"""The lines that a trainer writes on stdout: one JSON message each."""

from typing import Literal

from msgspec import Struct

from trainer_entry.wire.gguf import Quantization
from trainer_entry.wire.job import ExportFormat
from trainer_entry.wire.parameters import Tracker, TrainingParameters

ModelKind = Literal["adapter", "full"]
Phase = Literal[
    "loading_model",
    "preparing_data",
    "evaluating_base",
    "training_reward_model",
    "merging_reward_model",
    "training",
    "evaluating",
    "saving",
    "merging",
    "exporting",
    "pushing",
]
Unit = Literal["steps", "layers", "bytes"]

MAX_LINE_BYTES = 1 << 20
"""A longer line on the wire is not read: it is quarantined."""


class TrainerMessage(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What every line on the wire has: `seq` counts the attempt's messages from 1, without a gap."""

    attempt: int
    seq: int


class PhaseStarted(TrainerMessage, frozen=True, tag="phase_entered", gc=False):
    """The trainer began another part of its work."""

    phase: Phase


class Environment(Struct, frozen=True, kw_only=True, gc=False):
    """Where an attempt ran: enough, with the parameters, to run it again."""

    python: str
    platform: str
    device: str
    versions: dict[str, str]
    world_size: int = 1
    cpu_threads: int = 1


class TrainerStarted(TrainerMessage, frozen=True, tag="started", gc=False):
    """Training is about to begin: every parameter in effect, and what the trainer counted.

    `total_steps` are optimizer steps, of every phase together. `trainer_arguments` are the trainer's own, by its
    own names, as JSON.
    `left_out_examples`: those that teach nothing in the tokens that there is room for, of every phase together.
    `cut_examples`: those of which a part is missing; null of a release that did not count them.
    `base_revision`: commit of a hub model, or the SHA-256 of a local folder's weight files' names and sizes.
    """

    parameters: TrainingParameters
    trainer_arguments: dict[str, str | int | float | bool | list[str] | None]
    environment: Environment
    total_steps: int
    total_epochs: int
    train_examples: int
    eval_examples: int
    trainable_parameters: int
    all_parameters: int
    dataset_sha256: str
    base_revision: str | None
    chat_template: bool
    resumed_step: int = 0
    left_out_examples: int | None = None
    cut_examples: int | None = None


class WorkPlanned(TrainerMessage, frozen=True, tag="work_started", gc=False):
    """Work on a trained model is about to begin. `total_steps`: how many `unit` there are to do."""

    total_steps: int
    unit: Unit
    environment: Environment


class StepLogged(TrainerMessage, frozen=True, tag="step", gc=False):
    """Figures after optimizer step `step`. A figure that is not finite is null and named in `nonfinite`.

    Of a job that is no training `step` counts what `WorkStarted` says, and there are no figures.

    `loss`: mean per completion token since the last report. `elapsed_seconds`: of training in this attempt,
    by a monotonic clock. `eta_seconds`: until the job's last step; null while a later phase's speed is not known.
    `phase_eta_seconds`: until the last step of this phase. `step` counts through all phases of a job,
    `phase_step` those of `phase`. `reward`, `kl`: means over the completions, `completion_length`: in tokens.
    `reward_accuracy`: how often the chosen answer is rewarded more; `reward_margin`: by how much.
    `rewards`: the mean of each reward function's, and of a reward model's, before they are multiplied by their weights
    and added up to `reward`.
    `memory_mb`, `gpu_memory_mb`: the most that the process, and torch on its GPU, held so far, in 10^6 bytes.
    """

    step: int
    total_steps: int
    epoch: float
    elapsed_seconds: float
    eta_seconds: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    phase: Phase = "training"
    phase_step: int | None = None
    phase_total_steps: int | None = None
    reward: float | None = None
    kl: float | None = None
    completion_length: float | None = None
    reward_accuracy: float | None = None
    reward_margin: float | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    nonfinite: tuple[str, ...] = ()
    phase_eta_seconds: float | None = None
    rewards: dict[str, float | None] = {}


class Evaluated(TrainerMessage, frozen=True, tag="evaluated", gc=False):
    """Figures on the held-out records after step `step`."""

    step: int
    epoch: float
    metrics: dict[str, float | None]
    nonfinite: tuple[str, ...] = ()


class CheckpointWritten(TrainerMessage, frozen=True, tag="checkpoint", gc=False):
    """A checkpoint is complete on disk."""

    step: int
    path: str


class TrackerFailed(TrainerMessage, frozen=True, tag="tracker_failed", gc=False):
    """A tracker is told nothing more by this attempt, and why; the training goes on without it."""

    tracker: Tracker
    message: str


class SavedModel(Struct, frozen=True, kw_only=True, gc=False):
    """A trained model on disk. `metrics` has every final figure of training and evaluation.

    Figures of the untrained model on the same held-out records have the prefix `base_`. `reward_model_path`: the
    reward model beside it, where one was trained.
    """

    path: str
    kind: ModelKind
    size_bytes: int
    metrics: dict[str, float | None]
    reward_model_path: str | None = None


class Exported(Struct, frozen=True, kw_only=True, tag_field="type", tag="exported", gc=False):
    r"""A model that was copied out and read again.

    `sha256`: of the archive; of a folder, that of what `sha256sum` prints of its files in the order of their names:
    `find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum`.
    `quantization`: of a `gguf`, the type of its numbers. `warnings`: what of the model a copy of another format does
    not have, or has otherwise.
    """

    path: str
    format: ExportFormat
    files: int
    size_bytes: int
    sha256: str
    quantization: Quantization | None = None
    warnings: tuple[str, ...] = ()


class Pushed(Struct, frozen=True, kw_only=True, tag_field="type", tag="pushed", gc=False):
    """A model that lies on the hub: where, and the commit that put it there."""

    url: str
    repo_id: str
    commit: str
    private: bool
    files: int
    size_bytes: int


class Judged(Struct, frozen=True, kw_only=True, tag_field="type", tag="judged", gc=False):
    """The figures of a model on `records`. `base_model`: of what it was trained from."""

    records: int
    metrics: dict[str, float | None]
    base_model: bool = False


class TrainerFinished(TrainerMessage, frozen=True, tag="finished", gc=False):
    """The last word after success. `messages`: how many the attempt wrote, this one included.

    `model`: of a training or merge. `delivery`: of an export, push or evaluation.
    """

    step: int
    messages: int
    model: SavedModel | None
    delivery: Exported | Pushed | Judged | None = None


class TrainerStopped(TrainerMessage, frozen=True, tag="stopped", gc=False):
    """The last word after a stop: the checkpoint that was saved, if any step was made."""

    step: int
    messages: int
    checkpoint: str | None


class TrainerFailed(TrainerMessage, frozen=True, tag="failed", gc=False):
    """The last word after an exception: `kind` is its type, or `OutOfMemory` or `DiskFull`."""

    kind: str
    message: str
    traceback: str
    messages: int


AnyTrainerMessage = (
    PhaseStarted
    | TrainerStarted
    | WorkPlanned
    | StepLogged
    | Evaluated
    | CheckpointWritten
    | TrackerFailed
    | TrainerFinished
    | TrainerStopped
    | TrainerFailed
)
