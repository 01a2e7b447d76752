"""What a job is: the model, the dataset, the parameters, and the work on a trained model."""

from typing import Literal, assert_never

from msgspec import Struct

from trainer_entry.wire.cluster import ClusterRequest
from trainer_entry.wire.formats import DatasetFormat
from trainer_entry.wire.gguf import Quantization
from trainer_entry.wire.parameters import Tracker, TrainingParameters
from trainer_entry.wire.rewards import PythonFile

Task = Literal["text-generation", "summarization", "extractive-question-answering"]
Strategy = Literal["sft", "qlora", "rlhf", "dpo"]
Provider = Literal["huggingface", "unsloth"]
Container = Literal["jsonl", "json", "csv", "parquet"]
"""How the records of a file are stored."""
Compression = Literal["gzip", "zstd", "zip"]
JobKind = Literal["training", "merge", "export", "push", "evaluation"]
Dtype = Literal["float32", "bfloat16", "float16"]
ExportFormat = Literal["folder", "tar", "zip", "gguf"]

BUILT_IN_MODEL = "smollm2-135m-instruct"
"""The model name that works on a machine without a hub."""


def built_in_model_folder(home: str, cache_home: str | None) -> str:
    """The folder of the built-in model, for a home directory and the value of XDG_CACHE_HOME."""
    return f"{cache_home or f'{home}/.cache'}/modelforge/{BUILT_IN_MODEL}"


class DatasetFile(Struct, frozen=True, kw_only=True, gc=False):
    """The records that an attempt trains on: their SHA-256 is checked by the trainer before it reads them.

    `sha256`: of the file that was uploaded or named. `records_sha256`: of the JSON lines at `path`, where they were
    made from it; None where they are that file itself. `revision`: of the uploaded dataset; None of a file that was
    named by its path. `source`: the split of a hub's dataset that the records are, at the commit that they were
    fetched at, as `hf://owner/name[/config]@COMMIT?split=NAME`; both hashes are of the rows as JSON lines then.
    `has_tools`: some record has tools, or calls one. `origin`: the path that was named, of a file that was named by
    one. `columns`, `encoding`: by which it was asked to be read, where they were said with the job.
    `parts`: the datasets that are trained on together, where there are several. Then `filename` names them all,
    `format` is the first one's, `num_examples` counts the records that are taken of all of them, `path` is none, and
    `sha256` is that of the mixture: of what is taken, of what. `seed`: decides which records are taken of a part.
    """

    filename: str
    path: str
    sha256: str
    format: DatasetFormat
    num_examples: int
    records_sha256: str | None = None
    revision: int | None = None
    source: str | None = None
    has_tools: bool = False
    origin: str | None = None
    columns: dict[str, str | list[str]] | None = None
    encoding: str | None = None
    parts: tuple["DatasetPart", ...] = ()
    seed: int = 0

    @property
    def content(self) -> str:
        """The SHA-256 of the JSON lines that are read."""
        return self.records_sha256 or self.sha256

    @property
    def files(self) -> tuple["DatasetFile", ...]:
        """The files that are read: those of the parts, or the one that it is."""
        return tuple(part.dataset for part in self.parts) or (self,)


class DatasetPart(Struct, frozen=True, kw_only=True, gc=False):
    """One of several datasets that are trained on together, and how many of its records are taken (`mixture.py`).

    `weight`, `max_samples`: as they were asked for. `taken`: more than the dataset has where some are taken again.
    """

    dataset: DatasetFile
    taken: int
    weight: float = 1.0
    max_samples: int | None = None


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
    """Copy a model out, as a folder or as one archive. `to`: the place for it; null for one in the data directory.

    `root`: the folder that it stays in, whatever becomes of those on the way; null of a release that did not say so.
    A `gguf` is a folder too, with one file of the model in numbers of the type `quantization`, which is null of all
    others. `quantizer`: the program that makes it of a larger one, where one is needed. `merges`: the model is an
    adapter, which is merged into its base first; `base_revision`: the weights that it was trained on.
    """

    format: ExportFormat
    to: str | None = None
    root: str | None = None
    quantization: Quantization | None = None
    quantizer: str | None = None
    merges: bool = False
    base_revision: str | None = None


class Push(Work, frozen=True, tag="push", gc=False):
    """Upload a model to the hub, to a repository that is made if it is not there."""

    repo_id: str
    private: bool = True


class Evaluate(Work, frozen=True, tag="evaluate", gc=False):
    """Judge a model on records, all of which are evaluated on. `parameters`: how, as a training judges it.

    `adapts`: the model is an adapter, trained on the weights `base_revision`. `base_model`: what is judged is the model
    that it was trained from.
    """

    dataset: DatasetFile
    parameters: TrainingParameters
    adapts: bool = False
    base_model: bool = False
    base_revision: str | None = None


class Ancestor(Struct, frozen=True, kw_only=True, gc=False):
    """A trained model that another one comes of: what it was trained from, and by which job."""

    model_id: int
    name: str
    job_id: str
    base_model: str


class EarlierAdapter(Struct, frozen=True, kw_only=True, gc=False):
    """The adapter that a training goes on from. `base_revision`: the weights that it was trained on, where known."""

    path: str
    base_revision: str | None = None


class JobSpec(Struct, frozen=True, kw_only=True, gc=False):
    """All that a trainer needs to know; it stands in the log, and as `spec.json` in the attempt's folder.

    `work`: what to do with a trained model, and null for a training. Everything else describes then the model's
    training, but for `output_dir`: the folder of the merged model, or the place of the export.

    `model_path` is what to load: a local folder, a hub id, or the built-in name. `output_dir` does not exist
    until the whole trained model is in it. `checkpoint_dir` is shared by the attempts of a job.
    `reward_model_path`: what to load for `parameters.reward_model`, where one is given.
    `max_restarts`: how often a job is tried again by itself whose attempt was killed, interrupted, crashed, lost its
    power, or had its GPU fail.
    `rerun_of`: the job that this one repeats.
    `adapter`: one on `model_path`, which the training goes on from. `lineage`: the trained models that it goes on from,
    the last one first, or that a merged model comes of. `metadata`: what who asked for it noted of it.
    `validation`: the records to evaluate on, where they are no part of `dataset`.
    `cluster`: what is asked of the cluster that runs it, with the server's defaults; null on the server's own machine.
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
    work: Merge | Export | Push | Evaluate | None = None
    adapter: EarlierAdapter | None = None
    lineage: tuple[Ancestor, ...] = ()
    metadata: dict[str, str] = {}
    validation: DatasetFile | None = None
    cluster: ClusterRequest | None = None

    @property
    def evaluates(self) -> bool:
        """Whether a training has records to evaluate on."""
        return self.validation is not None or self.parameters.eval_split > 0

    @property
    def files(self) -> tuple[DatasetFile, ...]:
        """The files of records that the job, or the training of its model, reads."""
        judged = self.work.dataset.files if isinstance(self.work, Evaluate) else ()
        return (*self.dataset.files, *(() if self.validation is None else self.validation.files), *judged)

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
            case Evaluate():
                return "evaluation"
            case _:
                assert_never(self.work)

    @property
    def trains_reward_model(self) -> bool:
        """Whether one is trained first: there are preferences to train it from, and none is given."""
        prefers = self.dataset.format == "preferences"
        return self.strategy == "rlhf" and prefers and self.parameters.reward_model is None

    @property
    def has_reward_model(self) -> bool:
        """Whether a model rewards the policy, given or trained, be it beside functions or alone."""
        return self.trains_reward_model or (self.strategy == "rlhf" and self.parameters.reward_model is not None)

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """Who is told the figures of a training; work on a trained model is told nobody."""
        return () if self.work is not None else self.parameters.trackers

    @property
    def reward_files(self) -> tuple[str, ...]:
        """The Python files that are run to reward a policy."""
        return tuple(one.path for one in self.parameters.rewards if isinstance(one, PythonFile))

    @property
    def partial_output(self) -> str:
        """Where an export is written until it is whole: a folder beside its place, by a name that only it has."""
        return partial_export(self.output_dir, self.job_id)


def partial_export(place: str, job_id: str) -> str:
    """What an export is called until it is whole."""
    return f"{place}.{job_id}.partial"
