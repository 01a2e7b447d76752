"""How an answer is drawn: what chat.completions and completions say of it alike, and how the worker is told."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from modelforge.errors import BadInput
from modelforge.http.generation import Ask
from modelforge.http.openai.named_models import NamedModel
from trainer_entry import wire

MOST_TOKENS = 131_072
"""The longest answer; the model's context and the deadline end one before."""
_SEEDS = 2**32
_MOST_STOPS = 4
_LARGEST_BIAS = 100
_MOST_BIASES = 1024
_MOST_DIGITS = 9

ModelName = Annotated[str, Meta(min_length=1, max_length=4000)]
MostTokens = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
StopText = Annotated[str, Meta(min_length=1, max_length=200)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`include_usage`: one more chunk at the end, with the usage and no choice."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SampledBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of completion take."""

    model: ModelName
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MostTokens | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=_MOST_STOPS)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


class Sampling(Struct, frozen=True, kw_only=True):
    """How the answers of a request are drawn, as the worker is told; defaults are OpenAI's."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}


class Prompt(Struct, frozen=True, kw_only=True):
    """One prompt as the worker reads it: a text, its tokens, or a chat and the tools that may be called in it."""

    text: str = ""
    verbatim: bool = False
    ids: tuple[int, ...] = ()
    turns: tuple[wire.ChatTurn, ...] = ()
    tools: str | None = None


def sampling_of(body: SampledBody, max_tokens: int, top_logprobs: int | None) -> Sampling:
    """How the answers to a body are drawn.

    Raises:
        BadInput: two fields of it do not go together, or a token is none.
    """
    options = body.stream_options
    if options is not None and not body.stream:
        raise BadInput("There is no stream", "stream_options go with stream: true.", field="stream_options")
    if options is not None and options.include_obfuscation:
        raise BadInput(
            "This is not kept here", "No chunk is padded: leave it out.", field="stream_options.include_obfuscation"
        )
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=stop,
        top_logprobs=top_logprobs,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=_biases(body.logit_bias or {}),
    )


def _biases(given: dict[str, Any]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for token, bias in given.items():
        field = f"logit_bias.{token[:40]}"
        if not token.isascii() or not token.isdigit() or len(token) > _MOST_DIGITS:
            raise BadInput("This is no token", "logit_bias takes numbers of the model's tokens.", field=field)
        if isinstance(bias, bool) or not isinstance(bias, int | float) or abs(bias) > _LARGEST_BIAS:
            raise BadInput("This is no bias", f"It is a number from -{_LARGEST_BIAS} to {_LARGEST_BIAS}.", field=field)
        if int(token) in biases:
            raise BadInput("The same token is there twice", f"{int(token)} has a bias already: send one.", field=field)
        biases[int(token)] = float(bias)
    if len(biases) > _MOST_BIASES:
        raise BadInput("There are too many biases", f"At most {_MOST_BIASES} are taken.", field="logit_bias")
    return biases


def asking(model: NamedModel, prompt: Prompt, sampling: Sampling, place: int, deadline: float) -> Ask:
    """What the worker is asked for the answer at a place, which has a seed of its own."""

    def ask(number: int) -> wire.Generate:
        return wire.Generate(
            id=number,
            model_path=model.chosen.model_path,
            adapter_path=model.chosen.adapter_path,
            task=model.chosen.task,
            prompt=prompt.text,
            verbatim=prompt.verbatim,
            prompt_ids=prompt.ids,
            turns=prompt.turns,
            tools=prompt.tools,
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=None if sampling.seed is None else (sampling.seed + place) % _SEEDS,
            stop=sampling.stop,
            top_logprobs=sampling.top_logprobs,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            logit_bias=sampling.logit_bias,
            deadline_seconds=deadline,
        )

    return ask
