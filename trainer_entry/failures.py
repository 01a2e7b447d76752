"""What a trainer refuses to go on with, and how a failure is told. The names are a message's `kind`."""

_MESSAGE_CHARACTERS = 2_000
_HOST_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory")


class DatasetChanged(Exception):
    """The file is not the one that the job was accepted with."""


class NoTrainableTokens(Exception):
    """No record has a token that the loss is computed on."""


class NoChatTemplate(Exception):
    """The records are conversations, and the model does not say how to write one."""


class ConflictingParameters(Exception):
    """Two parameters cannot both be had."""


class NotBuilt(Exception):
    """This combination of task, strategy and provider is not here yet."""


class ModelUnavailable(Exception):
    """The model is neither on this machine nor reachable."""


class PromptTooLong(Exception):
    """The prompt leaves no room for an answer in the model's context."""


def kind_of(error: BaseException) -> str:
    """The exception's type, or `OutOfMemory`: CUDA names it by a type, the host's allocator only in its words."""
    told = isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _HOST_OUT_OF_MEMORY)
    if told or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "OutOfMemory"
    return type(error).__name__


def message_of(error: BaseException) -> str:
    """What the exception says, or its type if it says nothing."""
    return str(error).strip()[:_MESSAGE_CHARACTERS] or type(error).__name__
