"""Completions of OpenAI's clients: how a model goes on with a text, in no chat."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Literal

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from modelforge.errors import BadInput, ContextExceeded
from modelforge.fields import project_struct
from modelforge.http.generation import answer_once, send_events, told_to_the_end
from modelforge.http.openai.answering import (
    DONE,
    AnswerHead,
    FinishReason,
    Usage,
    answers_to,
    data_event,
    finish_of,
    head_of,
    refuse_streamed_key,
    told_error,
    usage_of,
    whole_answers,
)
from modelforge.http.openai.chat_messages import MOST_CHARACTERS
from modelforge.http.openai.named_models import NamedModel, find_named_model
from modelforge.http.openai.sampling import Prompt, SampledBody, Sampling, sampling_of
from modelforge.http.openai.unkept import Notes, notes_on, refuse
from modelforge.http.plumbing.body import idempotency_key, read_body
from modelforge.http.plumbing.openai_errors import ErrorAnswer
from modelforge.http.plumbing.route import Route, Streamed
from trainer_entry import wire

_DEFAULT_TOKENS = 16
_MOST_ANSWERS = 32
_LARGEST_TOKEN = 2**31 - 1
TokenId = Annotated[int, Meta(ge=0, le=_LARGEST_TOKEN)]


class CompletionBody(SampledBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompts to go on with: a text or its tokens, or a list of either. `echo`: the answer begins with the prompt."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1, max_length=MOST_CHARACTERS)]
    best_of: Annotated[int, Meta(ge=1, le=8)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    suffix: str | None = None


class CompletionLogprobs(Struct, frozen=True, kw_only=True):
    """The tokens of an answer, their natural logarithms of probability, the likeliest ones, and where each begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One answer, or a part of it; only the last part has a `finish_reason`."""

    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: CompletionLogprobs | None = None


class Completion(AnswerHead, frozen=True, kw_only=True):
    """The answers to prompts, or a part of them: the parts of a stream have the same shape."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


class _Asked(Struct, frozen=True, kw_only=True):
    """The prompts, each as often as it is to be answered, and what stands before each answer."""

    prompts: list[Prompt]
    different: int
    sampling: Sampling
    echoed: list[str]
    notes: Notes | None


def _asked(body: CompletionBody, model: NamedModel) -> _Asked:
    """What a body asks for.

    Raises:
        BadInput: it says what is not kept, or what does not go together.
    """
    refuse(body.suffix, "suffix", "A model goes on from the end of a text: leave it out.")
    each = body.n or 1
    if body.best_of not in {None, each}:
        raise BadInput("This is not kept here", "best_of: no answer is thrown away, so it is n.", field="best_of")
    if body.echo and body.logprobs is not None:
        raise BadInput(
            "This is not kept here", "echo: prompts have no probabilities, so not with logprobs.", field="echo"
        )
    prompts = _prompts(body.prompt, verbatim=model.chosen.task != "summarization")
    if any(prompt.ids for prompt in prompts):
        if body.echo:
            raise BadInput("This is not kept here", "echo: it goes with texts, and not with tokens.", field="echo")
        if model.chosen.task == "summarization":
            raise BadInput("The model summarizes texts", "Send the document as a text.", field="prompt")
    if len(prompts) * each > _MOST_ANSWERS:
        raise BadInput(
            "There are too many answers to give", f"At most {_MOST_ANSWERS}, n times prompts.", field="prompt"
        )
    return _Asked(
        prompts=[prompt for prompt in prompts for _ in range(each)],
        different=len(prompts),
        sampling=sampling_of(body, body.max_tokens or _DEFAULT_TOKENS, body.logprobs),
        echoed=[prompt.text if body.echo else "" for prompt in prompts for _ in range(each)],
        notes=notes_on(body, ("user",)),
    )


def _prompts(given: str | Sequence[str | int | Sequence[int]], *, verbatim: bool) -> list[Prompt]:
    """The prompts of a text, of tokens, or of a list of either."""
    texts = [given] if isinstance(given, str) else [one for one in given if isinstance(one, str)]
    tokens = [] if isinstance(given, str) else [one for one in given if isinstance(one, int)]
    lists = [] if isinstance(given, str) else [one for one in given if not isinstance(one, str | int)]
    if sum(map(bool, (texts, tokens, lists))) != 1:
        raise BadInput("A prompt is either texts or tokens", "Send texts, or lists of tokens, alone.", field="prompt")
    lists = [tokens] if tokens else lists
    if any(not one for one in (*texts, *lists)):
        raise BadInput("A prompt is empty", "Send a text or a token to go on with.", field="prompt")
    if sum(map(len, (*texts, *lists))) > MOST_CHARACTERS:
        raise ContextExceeded(
            "The prompt is too long", f"Together they may have {MOST_CHARACTERS} characters.", field="prompt"
        )
    ids = [tuple(one) for one in lists]
    return [Prompt(text=text, verbatim=verbatim) for text in texts] + [Prompt(ids=one, verbatim=True) for one in ids]


def _logprobs(tokens: Sequence[wire.TokenLogprob], begin: int) -> CompletionLogprobs:
    """The probabilities of tokens. `begin`: the characters of the answer before them."""
    offsets, seen = [], b""
    for one in tokens:
        offsets.append(begin + len(seen.decode(errors="ignore")))
        seen += bytes(one.bytes)
    return CompletionLogprobs(
        tokens=[one.text for one in tokens],
        token_logprobs=[one.logprob for one in tokens],
        top_logprobs=[{other.text: other.logprob for other in one.top} for one in tokens],
        text_offset=offsets,
    )


async def _whole(request: web.Request, body: CompletionBody) -> Completion:
    model = find_named_model(request, body.model)
    asked = _asked(body, model)
    found = await whole_answers(answers_to(request, model, asked.prompts, asked.sampling, "prompt"))
    return project_struct(
        head_of("cmpl-", model, asked.notes),
        Completion,
        object="text_completion",
        choices=[
            CompletionChoice(
                index=index,
                text=echoed + answer.text,
                finish_reason=finish_of(answer),
                logprobs=None if body.logprobs is None else _logprobs(answer.logprobs, 0),
            )
            for index, (echoed, answer) in enumerate(zip(asked.echoed, found, strict=True))
        ],
        usage=usage_of(found, asked.different),
    )


async def _events(
    request: web.Request, body: CompletionBody, model: NamedModel, asked: _Asked
) -> AsyncGenerator[bytes, None]:
    head = head_of("cmpl-", model, asked.notes)
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)

    def event(choice: CompletionChoice | None, usage: Usage | None = None) -> bytes:
        return data_event(
            project_struct(
                head,
                Completion,
                object="text_completion",
                choices=[] if choice is None else [choice],
                usage=usage if with_usage else UNSET,
            )
        )

    ends: dict[int, wire.Generated] = {}
    written: dict[int, int] = {}
    answers = answers_to(request, model, asked.prompts, asked.sampling, "prompt")
    async with aclosing(answers):
        async for index, message in answers:
            if index not in written:
                written[index] = 0
                if asked.echoed[index]:
                    yield event(CompletionChoice(index=index, text=asked.echoed[index], finish_reason=None))
            if isinstance(message, wire.Generated):
                ends[index] = message
                yield event(CompletionChoice(index=index, text="", finish_reason=finish_of(message)))
            else:
                logprobs = None if body.logprobs is None else _logprobs(message.logprobs, written[index])
                written[index] += len(message.text)
                yield event(CompletionChoice(index=index, text=message.text, finish_reason=None, logprobs=logprobs))
    if with_usage:
        yield event(None, usage_of([ends[index] for index in sorted(ends)], asked.different))
    yield DONE


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Go on with a text; with `"stream": true` the answer comes as server-sent events."""
    key = await idempotency_key(request)
    body = await read_body(request, CompletionBody)
    if not body.stream:
        return await answer_once(request, key, lambda: _whole(request, body))
    refuse_streamed_key(key)
    model = find_named_model(request, body.model)
    events = _events(request, body, model, _asked(body, model))
    return await send_events(request, told_to_the_end(events, told_error))


ROUTES = (
    Route(
        method="POST",
        path="/v1/completions",
        handler=create_completion,
        body=CompletionBody,
        answer=Completion,
        streams=(Streamed("message", Completion), Streamed("message", ErrorAnswer)),
        errors=(400, 404, 409, 429, 503),
    ),
)
