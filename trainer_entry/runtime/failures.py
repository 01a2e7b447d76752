"""The failures of a trainer. The name of an exception is the `kind` of its message."""

import contextlib
from collections.abc import Iterator

from trainer_entry.runtime.bounds import RECORD_SECONDS, time_for
from trainer_entry.runtime.disk import says_no_room
from trainer_entry.runtime.secrets import redact
from trainer_entry.wire.obstacles import Obstacle

_MESSAGE_CHARACTERS = 2_000
_NO_MEMORY_WORDS = (
    *("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"),
)


class DatasetChanged(Exception):
    """The file is not the one that the job was accepted with."""


class NoTrainableTokens(Exception):
    """No record has a token that the loss is computed on."""


class LossNotFinite(Exception):
    """The loss was no number from the beginning: there is nothing to learn from it."""


class NoChatTemplate(Exception):
    """The records are conversations, and the model does not say how to write one."""


class ChatTemplateFails(Exception):
    """The model's chat template cannot write a conversation."""


class ConflictingParameters(Exception):
    """Two parameters cannot both be had."""


def refuse(obstacle: Obstacle | None) -> None:
    """Refuse what cannot be trained, in the words in which the server refuses it before a start.

    Raises:
        ConflictingParameters: there is an obstacle.
    """
    if obstacle is not None:
        raise ConflictingParameters(obstacle.text)


class WrongRecords(Exception):
    """The records are of a format that the task or the strategy cannot learn from."""


class RewardFunctionFails(Exception):
    """A reward function cannot be loaded, raises, or gives what is no reward."""


class RewardFileChanged(Exception):
    """The file of a reward function is not the one that the job was accepted with."""


class TokenWithoutEmbedding(Exception):
    """The tokenizer writes a text with a token that the model has no embedding of."""


class NoSuchLayers(Exception):
    """The model has no layers that the adapter could be put on."""


class NotTrainedWhole(Exception):
    """A module that is to be trained whole beside an adapter is not in the model, or cannot be trained so."""


class ModelUnavailable(Exception):
    """The model is neither on this machine nor reachable."""


class BaseChanged(Exception):
    """The base model's weights are not those that the adapter was trained on."""


class CannotBeSaved(Exception):
    """The model that a training would make could not be saved; it is found out before the first step."""


class NotMergeable(Exception):
    """The adapter cannot be put into the weights of its base."""


class NotWritable(Exception):
    """The model cannot be written as GGUF."""


class QuantizerFailed(Exception):
    """The program that quantizes did not do it."""


class PlaceTaken(Exception):
    """Where the export was to go there is something else."""


class PlaceMoved(Exception):
    """A folder on the way to where the export was to go is none, or a link to elsewhere."""


class CopyDiffers(Exception):
    """What was exported does not read as what was written."""


class HubRefused(Exception):
    """The hub did not take the model, or could not be reached."""


class PromptTooLong(Exception):
    """The prompt leaves no room for an answer in the model's context."""


class PromptEmpty(Exception):
    """The prompt has no tokens, so that nothing follows it."""


class UnknownToken(Exception):
    """A request names a token that the model does not have."""


class Withdrawn(Exception):
    """Nobody waits for the answer any more."""


@contextlib.contextmanager
def naming_line(line: int, seconds: float = RECORD_SECONDS) -> Iterator[None]:
    """Write out a record in the block; where the chat template cannot, the error names the record's line.

    `seconds`: what the template may take of the processor for the whole record.
    """
    try:
        with time_for(seconds):
            yield
    except ChatTemplateFails as error:
        raise ChatTemplateFails(f"Line {line} of the dataset: {error}") from error


def kind_of(error: BaseException) -> str:
    """The exception's type, or `OutOfMemory` or `DiskFull`, which the libraries name by many types and words."""
    if says_no_room(error):
        return "DiskFull"
    by_words = isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _NO_MEMORY_WORDS)
    if by_words or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "OutOfMemory"
    return type(error).__name__


def message_of(error: BaseException) -> str:
    """What the exception says, or its type if it says nothing."""
    return redact(str(error)).strip()[:_MESSAGE_CHARACTERS] or type(error).__name__
