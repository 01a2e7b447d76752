"""What server and trainer say to each other: a JobSpec goes in, one TrainerMessage a line comes out.

The one module that both sides import. It needs msgspec and nothing else, and it does no input or output.
Fields are only ever added, with defaults: spools of older releases must still decode.
"""

from typing import Annotated, Literal, assert_never

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Task = Literal["text-generation", "summarization", "extractive-question-answering"]
Strategy = Literal["sft", "qlora", "rlhf", "dpo"]
Provider = Literal["huggingface", "unsloth"]
DatasetFormat = Literal[
    "input_output",
    "prompt_completion",
    "alpaca",
    "messages",
    "conversations",
    "text",
    "document_summary",
    "article_highlights",
    "question_answer",
    "squad",
    "preferences",
]
Container = Literal["jsonl", "json", "csv", "parquet"]
"""How the records of a file are stored."""
Compression = Literal["gzip", "zstd"]
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
JobKind = Literal["training", "merge", "export", "push"]
Dtype = Literal["float32", "bfloat16", "float16"]
ExportFormat = Literal["folder", "tar", "zip"]
Unit = Literal["steps", "layers", "bytes"]
Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]

MAX_LINE_BYTES = 1 << 20
"""A longer line on the wire is not read: it is quarantined."""

PositiveInt = Annotated[int, Meta(ge=1, le=1_000_000)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]


class TrainingParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Every hyperparameter of a job, named as transformers, trl and peft name them.

    None means "chosen by the trainer for this strategy and device"; the trainer reports what it chose in
    `TrainerStarted.parameters`, where no field of this kind is left open.
    """

    num_train_epochs: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    max_steps: Annotated[int, Meta(ge=-1, le=100_000_000)] = -1
    per_device_train_batch_size: Annotated[int, Meta(ge=1, le=4096)] = 4
    per_device_eval_batch_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    gradient_accumulation_steps: Annotated[int, Meta(ge=1, le=65_536)] = 1
    gradient_checkpointing: bool = False
    learning_rate: Annotated[float, Meta(gt=0, le=10)] | None = None
    lr_scheduler_type: Scheduler = "linear"
    warmup_steps: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    warmup_ratio: Fraction = 0.0
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 0.0
    max_grad_norm: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    optim: Optimizer = "adamw_torch"
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 42
    bf16: bool | None = None
    fp16: bool | None = None
    max_seq_length: Annotated[int, Meta(ge=-1, le=10_000_000)] | None = None
    packing: bool = False
    eval_split: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    eval_steps: PositiveInt | None = None
    logging_steps: PositiveInt = 1
    save_steps: PositiveInt = 500
    save_total_limit: PositiveInt | None = 3
    early_stopping_patience: PositiveInt | None = None
    lora_r: Annotated[int, Meta(ge=1, le=4096)] = 16
    lora_alpha: Annotated[int, Meta(ge=1, le=65_536)] = 32
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    target_modules: (
        Annotated[str, Meta(min_length=1, max_length=1000)]
        | Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(min_length=1, max_length=100)]
    ) = "all-linear"
    use_lora: bool = True
    use_4bit: bool | None = None
    use_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    use_nested_quant: bool = True
    beta: Annotated[float, Meta(ge=0, le=100)] | None = None
    reward_model: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    reward_learning_rate: Annotated[float, Meta(gt=0, le=10)] | None = None
    rl_algorithm: Literal["rloo", "grpo"] = "rloo"
    num_generations: Annotated[int, Meta(ge=2, le=64)] = 4
    max_completion_length: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    doc_stride: Annotated[int, Meta(ge=0, le=1_000_000)] = 128
    num_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    report_to: Literal["none", "tensorboard"] = "none"


class DatasetFile(Struct, frozen=True, kw_only=True, gc=False):
    """The records that an attempt trains on: their SHA-256 is checked by the trainer before it reads them.

    `sha256`: of the file that was uploaded or named. `records_sha256`: of the JSON lines at `path`, where they were
    made from it; None where they are that file itself. `revision`: of the uploaded dataset; None of a file that was
    named by its path. `source`: the split of a hub's dataset that the records are, at the commit that they were
    fetched at, as `hf://owner/name[/config]@COMMIT?split=NAME`; both hashes are of the rows as JSON lines then.
    """

    filename: str
    path: str
    sha256: str
    format: DatasetFormat
    num_examples: int
    records_sha256: str | None = None
    revision: int | None = None
    source: str | None = None

    @property
    def content(self) -> str:
        """The SHA-256 of the JSON lines that are read."""
        return self.records_sha256 or self.sha256


class Work(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What is done with a trained model after its training: which one it is, and the folder that it lies in."""

    model_id: int
    name: str
    path: str


class Merge(Work, frozen=True, tag="merge", gc=False):
    """Put an adapter into the weights of its base; the result is a model of its own.

    `dtype`: of the merged weights; null for the base's. `base_revision`: the weights that the adapter was trained on,
    as `TrainerStarted` has it. `metrics`: the adapter's, which hold for the merged model too.
    """

    dtype: Dtype | None = None
    base_revision: str | None = None
    metrics: dict[str, float | None] = {}


class Export(Work, frozen=True, tag="export", gc=False):
    """Copy a model out, as a folder or as one archive. `to`: the place for it; null for one in the data directory."""

    format: ExportFormat
    to: str | None = None


class Push(Work, frozen=True, tag="push", gc=False):
    """Upload a model to the hub, to a repository that is made if it is not there."""

    repo_id: str
    private: bool = True


class JobSpec(Struct, frozen=True, kw_only=True, gc=False):
    """All that a trainer needs to know; it stands in the log, and as `spec.json` in the attempt's folder.

    `work`: what to do with a trained model, and null for a training. Everything else tells then of the model's
    training, but for `output_dir`: the folder of the merged model, or the place of the export.

    `model_path` is what to load: a local folder, a hub id, or the built-in name. `output_dir` does not exist
    until the whole trained model is in it. `checkpoint_dir` is shared by the attempts of a job.
    `reward_model_path`: what to load for `parameters.reward_model`, where one is given.
    `max_restarts`: how often a job is tried again by itself whose attempt was killed, interrupted, crashed, lost its
    power, or had its GPU fail.
    `rerun_of`: the job that this one repeats.
    """

    job_id: str
    task: Task
    strategy: Strategy
    provider: Provider
    model_name: str
    model_path: str
    dataset: DatasetFile
    parameters: TrainingParameters
    output_name: str
    output_dir: str
    checkpoint_dir: str
    reward_model_path: str | None = None
    grace_seconds: float = 120.0
    max_restarts: int = 0
    rerun_of: str | None = None
    work: Merge | Export | Push | None = None

    @property
    def kind(self) -> JobKind:
        """What the job is."""
        match self.work:
            case None:
                return "training"
            case Merge():
                return "merge"
            case Export():
                return "export"
            case Push():
                return "push"
            case _:
                assert_never(self.work)

    @property
    def partial_output(self) -> str:
        """Where an export is written until it is whole: a folder beside its place, by a name that only it has."""
        return f"{self.output_dir}.{self.job_id}.partial"


class AttemptSpec(Struct, frozen=True, kw_only=True, gc=False):
    """`spec.json`: a job's spec for one attempt. `token` marks every process of the attempt as ours.

    `gpus`: those that the attempt may use, as CUDA names them; null where there are none to share.
    """

    job: JobSpec
    attempt: int
    token: str
    cpu_threads: int
    resume_from: str | None = None
    gpus: tuple[str, ...] | None = None


CHECKPOINT_MANIFEST = "manifest.json"
"""Written last into a checkpoint, once everything else of it is on the disk."""


class CheckpointManifest(Struct, frozen=True, kw_only=True, gc=False):
    """What a whole checkpoint consists of: the size in bytes of each file, by its path in the folder."""

    step: int
    sizes: dict[str, int]


class ShimReport(Struct, frozen=True, kw_only=True, gc=False):
    """`shim.json`: who runs the attempt. Pid, start time in clock ticks and boot id name one process."""

    pid: int
    start_time: int
    boot_id: str
    token: str


class ExitReport(Struct, frozen=True, kw_only=True, gc=False):
    """`exit.json`: how the launcher ended, written by the shim once every descendant is gone.

    `stop_signalled`: a stop reached the shim. `killed_after_grace`: the trainer did not end by itself.
    `max_rss_kib`: largest resident set of any process of the tree. `oom_kills`: processes of this machine that
    the kernel killed for want of memory meanwhile.
    """

    code: int | None
    signal: int | None
    stop_signalled: bool
    killed_after_grace: bool
    max_rss_kib: int
    user_seconds: float
    system_seconds: float
    oom_kills: int = 0


class TrainerMessage(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What every line on the wire has: `seq` counts the attempt's messages from 1, without a gap."""

    attempt: int
    seq: int


class PhaseEntered(TrainerMessage, frozen=True, tag="phase_entered", gc=False):
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


class WorkStarted(TrainerMessage, frozen=True, tag="work_started", gc=False):
    """Work on a trained model is about to begin. `total_steps`: how many `unit` there are to do."""

    total_steps: int
    unit: Unit
    environment: Environment


class StepLogged(TrainerMessage, frozen=True, tag="step", gc=False):
    """Figures after optimizer step `step`. A figure that is not finite is null and named in `nonfinite`.

    Of a job that is no training `step` counts what `WorkStarted` says, and there are no figures.

    `loss`: mean per completion token since the last report. `elapsed_seconds`: of training in this attempt,
    by a monotonic clock. `eta_seconds`: as the trainer reckons it. `step` counts through all phases of a job,
    `phase_step` those of `phase`. `reward`, `kl`: means over the completions, `completion_length`: in tokens.
    `reward_accuracy`: how often the chosen answer is rewarded more; `reward_margin`: by how much.
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


class Evaluated(TrainerMessage, frozen=True, tag="evaluated", gc=False):
    """Figures on the held-out records after step `step`."""

    step: int
    epoch: float
    metrics: dict[str, float | None]
    nonfinite: tuple[str, ...] = ()


class CheckpointSaved(TrainerMessage, frozen=True, tag="checkpoint", gc=False):
    """A checkpoint is complete on disk."""

    step: int
    path: str


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
    """

    path: str
    format: ExportFormat
    files: int
    size_bytes: int
    sha256: str


class Pushed(Struct, frozen=True, kw_only=True, tag_field="type", tag="pushed", gc=False):
    """A model that lies on the hub: where, and the commit that put it there."""

    url: str
    repo_id: str
    commit: str
    private: bool
    files: int
    size_bytes: int


class TrainerFinished(TrainerMessage, frozen=True, tag="finished", gc=False):
    """The last word after success. `messages`: how many the attempt wrote, this one included.

    `model`: of a training or merge. `delivery`: of an export or push.
    """

    step: int
    messages: int
    model: SavedModel | None
    delivery: Exported | Pushed | None = None


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
    PhaseEntered
    | TrainerStarted
    | WorkStarted
    | StepLogged
    | Evaluated
    | CheckpointSaved
    | TrainerFinished
    | TrainerStopped
    | TrainerFailed
)


class Generate(Struct, frozen=True, kw_only=True, gc=False):
    """A prompt for the inference worker. `adapter_path` null: the base model alone. Temperature 0: greedy.

    `prompt`: the document, for a summary; the question, for an answer in `context`, which no other task has.
    """

    id: int
    model_path: str
    adapter_path: str | None
    prompt: str
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None = None
    deadline_seconds: float = 120.0
    task: Task = "text-generation"
    context: str | None = None


class Token(Struct, frozen=True, kw_only=True, tag_field="type", tag="token", gc=False):
    """A piece of the answer, as it comes."""

    id: int
    text: str


class Generated(Struct, frozen=True, kw_only=True, tag_field="type", tag="generated", gc=False):
    """The whole answer. `finish`: `stop` at an end token, `length` at the limit, `deadline` out of time.

    `score`, 0 to 1: how likely the answer is, for question answering; null for other tasks. `start`, `end`: where it
    stands in the context, in characters; null where the model says that there is none.
    """

    id: int
    text: str
    tokens: int
    milliseconds: int
    finish: Literal["stop", "length", "deadline"]
    score: float | None = None
    start: int | None = None
    end: int | None = None


class GenerationFailed(Struct, frozen=True, kw_only=True, tag_field="type", tag="failed", gc=False):
    """No answer, and why."""

    id: int
    kind: str
    message: str


AnyWorkerMessage = Token | Generated | GenerationFailed

BUILT_IN_MODEL = "smollm2-135m-instruct"
"""The model name that works on a machine without a hub."""


class DatasetLook(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What `python -m trainer_entry.dataset_view` is asked on stdin: to look at a dataset as a job would train on it.

    Of the job nothing is read but its task, strategy, provider, model, dataset and parameters. `revision`: of the
    dataset, to be told again. `deadline_seconds`: what takes longer is ended by the system.
    """

    job: JobSpec
    revision: int
    deadline_seconds: float


class LookAtRecords(DatasetLook, frozen=True, tag="preview", gc=False):
    """Show the first `limit` records; the answer is a `DatasetPreview`."""

    limit: int


class LookAtLengths(DatasetLook, frozen=True, tag="statistics", gc=False):
    """Measure at most `sample` records, evenly spread over the file; the answer is a `DatasetStatistics`."""

    sample: int


AnyDatasetLook = LookAtRecords | LookAtLengths

SequenceName = Literal["text", "source", "target", "window", "chosen", "rejected", "prompt"]
"""What a model reads at once. Text: a prompt and its answer, or a text to go on with. Source, target: what an
encoder-decoder model reads and writes. Window: a question with a part of its context. Chosen, rejected: a prompt with
either answer. Prompt: what a policy completes by itself.
"""


class SeenToken(Struct, frozen=True, kw_only=True, gc=False):
    """A token as a model reads it. The texts of a sequence's tokens, put together, are its text.

    `text` is empty where a character needs further tokens. `loss`: whether the model learns to tell this token; for
    question answering, whether the answer begins or ends with it.
    """

    id: int
    text: str
    loss: bool


class SeenSequence(Struct, frozen=True, kw_only=True, gc=False):
    """The tokens that a model reads at once. `length`: how many there were before they were cut.

    `start`, `end`: of a window, the places of the answer's first and last token; the same place for both, that of the
    first token, says that the window has no answer.
    """

    name: SequenceName
    tokens: tuple[SeenToken, ...]
    length: int
    start: int | None = None
    end: int | None = None


class SeenExample(Struct, frozen=True, kw_only=True, gc=False):
    """What a trainer makes of a record, or of a part of it. `left_out`: why it is not trained on, where it is not."""

    sequences: tuple[SeenSequence, ...]
    left_out: str | None = None


MOST_PREVIEWED_BYTES = 4 << 20
"""A preview ends after the record in which so many bytes of the file were shown."""


class PreviewedRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A record as it stands in its line, and, where a model was named, as the model sees it.

    `more_examples`: how many of them are not shown, for want of room.
    """

    line: int
    record: Raw
    examples: tuple[SeenExample, ...] | UnsetType = UNSET
    more_examples: int | UnsetType = UNSET


class Sight(Struct, frozen=True, kw_only=True, gc=False):
    """With which settings a dataset was looked at, those included that were chosen for it.

    `max_seq_length`: in tokens, after which examples are cut. `context`: how many the model can read at once.
    """

    task: Task
    strategy: Strategy
    provider: Provider
    model_name: str
    max_seq_length: int
    context: int
    chat_template: bool
    doc_stride: int | None = None
    max_completion_length: int | None = None


class DatasetPreview(Struct, frozen=True, kw_only=True, gc=False):
    """The first records of a dataset. `has_more`: whether there are others after them."""

    filename: str
    revision: int
    format: DatasetFormat
    num_examples: int
    records: tuple[PreviewedRecord, ...]
    has_more: bool
    seen_with: Sight | None = None


class Quantiles(Struct, frozen=True, kw_only=True, gc=False):
    """Lengths that so many percent of the sequences do not exceed."""

    min: int
    p5: int
    p25: int
    p50: int
    p75: int
    p95: int
    p99: int
    max: int


class Histogram(Struct, frozen=True, kw_only=True, gc=False):
    """How many sequences lie between each two neighbouring edges; one on an edge counts after it, the last before."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Lengths(Struct, frozen=True, kw_only=True, gc=False):
    """How long the sequences of one kind are, in tokens, before they are cut.

    `limit`: where they are cut. `truncated`: how many are longer, and `truncated_share` of all, 0 to 1.
    """

    sequence: SequenceName
    count: int
    mean: float
    quantiles: Quantiles
    histogram: Histogram
    limit: int
    truncated: int
    truncated_share: float


class DatasetStatistics(Struct, frozen=True, kw_only=True, gc=False):
    """How long a dataset's records are in a model's tokens, and what of them is trained on.

    `measured`: records of all `num_examples`; where they are fewer, they are evenly spread and always the same ones.
    `examples`: what they become, as a trainer takes it; `left_out` of them are not trained on, for want of a token to
    learn, and `left_out_lines` names the first 100. `tokens`, `loss_tokens`: of the examples that are trained on, cut
    as they are, all and those that carry loss.
    """

    filename: str
    revision: int
    format: DatasetFormat
    num_examples: int
    measured: int
    examples: int
    left_out: int
    left_out_lines: tuple[int, ...]
    tokens: int
    loss_tokens: int
    lengths: tuple[Lengths, ...]
    seen_with: Sight


class DatasetUnseen(Struct, frozen=True, kw_only=True, gc=False):
    """Why a model does not see a dataset; `kind` is the exception's type. The worker's exit code is 3 then."""

    kind: str
    message: str


UNSEEN = 3
"""The exit code of `trainer_entry.dataset_view` that goes with a `DatasetUnseen`."""


class FetchRows(Struct, frozen=True, kw_only=True, gc=False):
    """What `python -m trainer_entry.hub_dataset` is asked on stdin: to write the rows of a split as JSON lines.

    `commit`: 40 hex digits. `rows`: the file to write. `scratch`: a folder for what is only needed meanwhile.
    `limit`: the bytes that the file may have. `still_seconds`: when no rows come for so long, the system ends it.
    """

    repo: str
    config: str | None
    commit: str
    split: str
    rows: str
    scratch: str
    limit: int
    still_seconds: float


class RowsFetched(Struct, frozen=True, kw_only=True, tag_field="type", tag="fetched", gc=False):
    """How many rows there were. `left_out`: the columns that are no text, such as images."""

    rows: int
    left_out: tuple[str, ...]


class RowsRefused(Struct, frozen=True, kw_only=True, tag_field="type", tag="refused", gc=False):
    """Why there are no rows to train on.

    `access`: the hub does not let this token read them. `unreachable`: it does not answer, or not with what it should.
    `unusable`: they are not there, too many, or no texts. `full`: there is no room on the disk for them.
    """

    kind: Literal["access", "unreachable", "unusable", "full"]
    message: str


AnyRows = RowsFetched | RowsRefused
