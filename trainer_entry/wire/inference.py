"""Prompts for the inference worker, and its answers."""

from typing import Literal

from msgspec import Struct

from trainer_entry.wire.job import Task


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
