"""Prompts for the inference worker, and its answers."""

from typing import Literal

from msgspec import Struct

from trainer_entry.wire.job import Task

MOST_ANSWERS_AT_ONCE = 16
"""How many a worker writes together at most; whoever comes then waits."""


class ToolCall(Struct, frozen=True, kw_only=True, gc=False):
    """A function that the model called in an earlier turn. `arguments`: its JSON object, as the model wrote it."""

    id: str
    name: str
    arguments: str


class ChatTurn(Struct, frozen=True, kw_only=True, gc=False):
    """One turn of a chat. `tool_calls` are an assistant's; `tool_call_id` and `name` say what a tool's turn answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class LikelyToken(Struct, frozen=True, kw_only=True, gc=False):
    """A token that could have come, and the natural logarithm of its probability, before temperature and top_p."""

    text: str
    bytes: tuple[int, ...]
    logprob: float


class TokenLogprob(Struct, frozen=True, kw_only=True, gc=False):
    """A token of the answer, and the likeliest ones that stood beside it, the likeliest first."""

    text: str
    bytes: tuple[int, ...]
    logprob: float
    top: tuple[LikelyToken, ...] = ()


class Generate(Struct, frozen=True, kw_only=True, tag_field="type", tag="generate", gc=False):
    """A prompt for the inference worker. `adapter_path` null: the base model alone. Temperature 0: greedy.

    `prompt`: the document, for a summary; the question, for an answer in `context`, which no other task has.
    `turns`: a chat in place of the prompt, in the model's own template, with `tools`, the JSON list of the functions
    that it may call. `verbatim`: the prompt as it is, in no template; `prompt_ids`: its tokens in place of its text.
    `stop`: texts that end the answer and are no part of it. `top_logprobs`: how many likely tokens are named beside
    each of the answer; null: none, and no probabilities. The penalties are OpenAI's, -2 to 2, on the answer's tokens.
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
    turns: tuple[ChatTurn, ...] = ()
    tools: str | None = None
    verbatim: bool = False
    prompt_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}


class Withdraw(Struct, frozen=True, kw_only=True, tag_field="type", tag="withdraw", gc=False):
    """Nobody waits for the answer of this id any more."""

    id: int


class Token(Struct, frozen=True, kw_only=True, tag_field="type", tag="token", gc=False):
    """A piece of the answer, as it comes."""

    id: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Generated(Struct, frozen=True, kw_only=True, tag_field="type", tag="generated", gc=False):
    """The whole answer. `finish`: `stop` at an end token, `length` at the limit, `deadline` out of time.

    `score`, 0 to 1: how likely the answer is, for question answering; null for other tasks. `start`, `end`: where it
    stands in the context, in characters; null where the model says that there is none. `prompt_tokens`: what it read.
    `logprobs`: of all the pieces. The worker leaves them to its client to put in, for a line has a greatest length.
    """

    id: int
    text: str
    tokens: int
    milliseconds: int
    finish: Literal["stop", "length", "deadline"]
    score: float | None = None
    start: int | None = None
    end: int | None = None
    prompt_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class GenerationFailed(Struct, frozen=True, kw_only=True, tag_field="type", tag="failed", gc=False):
    """No answer, and why."""

    id: int
    kind: str
    message: str


AnyWorkerRequest = Generate | Withdraw
AnyWorkerMessage = Token | Generated | GenerationFailed
