"""The sequences that a model reads of a dataset, and the context in which they are tokenized."""
# mypy: allow-untyped-calls

from msgspec import Struct

from trainer_entry.providers.huggingface import Source, context_of, find, model_class
from trainer_entry.runtime.failures import ModelUnavailable, kind_of, message_of
from trainer_entry.training.defaults import resolve_parameters, with_model
from trainer_entry.wire import JobSpec, PreviewSettings, SequenceName, TrainingParameters


class TokenizationContext(Struct, frozen=True, gc=False):
    """How a job reads its dataset: with a model's config and tokenizer, and with every parameter in effect."""

    job: JobSpec
    source: Source
    parameters: TrainingParameters
    model_context: int
    max_length: int

    @property
    def settings(self) -> PreviewSettings:
        """The settings of the preview."""
        job = self.job
        return PreviewSettings(
            task=job.task,
            strategy=job.strategy,
            provider=job.provider,
            model_name=job.model_name,
            max_seq_length=self.max_length,
            context=self.model_context,
            chat_template=self.source.tokenizer.chat_template is not None,
            doc_stride=self.parameters.doc_stride if job.task == "extractive-question-answering" else None,
            max_completion_length=self.parameters.max_completion_length if job.strategy == "rlhf" else None,
        )


class TokenizedSequence(Struct, frozen=True, gc=False):
    """Tokens that are read at once, and which of them carry loss. `length`: before they were cut, at `limit`."""

    name: SequenceName
    ids: list[int]
    loss: list[bool]
    length: int
    limit: int
    start: int | None = None
    end: int | None = None


class TokenizedExample(Struct, frozen=True, gc=False):
    """A row of the trainer's dataset; `left_out`: why it is none."""

    line: int
    sequences: tuple[TokenizedSequence, ...]
    left_out: str | None = None


def tokenization_context(job: JobSpec) -> TokenizationContext:
    """How a job would read its dataset.

    Raises:
        ModelUnavailable: the model is not to be had, not to be read, or not for the task.
        ConflictingParameters: two parameters cannot both be had.
    """
    parameters = resolve_parameters(job)
    try:
        source = find(job.model_path)
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(
            f"The config or the tokenizer of {job.model_name} cannot be read: {kind_of(error)}: {message_of(error)}"
        ) from error
    model_class(source.config, job.task)
    context = context_of(source.config, source.tokenizer)
    parameters = with_model(parameters, job, context, encoder_decoder=bool(source.config.is_encoder_decoder))
    return TokenizationContext(job, source, parameters, context, parameters.max_seq_length or context)
