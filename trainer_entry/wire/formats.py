"""The record formats of datasets: for each its name, and the type of the JSON object on a line.

The server recognises and checks the records, and the trainer reads them; both by these types.
"""

import re
from typing import Any, Literal

from msgspec import Struct, field, json

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
Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks. `developer` is OpenAI's newer name of `system`; a `tool` gives the result of a call."""


class InputOutput(Struct, frozen=True, gc=False):
    """A prompt and the answer to learn. `label`: what KTO learns from, and nothing here does."""

    input: str
    output: str
    system: str | None = None
    label: Any = None


class ContentPart(Struct, frozen=True, gc=False):
    """A part of what is said in a turn; those of another `type` than text are no text."""

    type: str
    text: str | None = None


class FunctionCall(Struct, frozen=True, gc=False):
    """What is called. `arguments`: an object, or its JSON as OpenAI writes it."""

    name: str
    arguments: str | dict[str, Any] = field(default_factory=dict)


class ToolCall(Struct, frozen=True, gc=False):
    """A call of a tool in an assistant's turn."""

    function: FunctionCall
    id: str | None = None
    type: str | None = None


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation.

    `content`: a text, or its parts; it may be missing beside `tool_calls`. `weight` (OpenAI) and `train` (axolotl) say
    whether an assistant's turn is to be learned; both are so by default.
    """

    role: Role
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    weight: float | None = None
    train: bool | None = None


class PromptCompletion(Struct, frozen=True, gc=False):
    """A prompt and what follows it, as texts or as turns. `label`: what KTO learns from, and nothing here does."""

    prompt: str | list[Message]
    completion: str | list[Message]
    system: str | None = None
    tools: list[dict[str, Any]] | str | None = None
    label: Any = None


class Alpaca(Struct, frozen=True, gc=False):
    """An instruction, what it is to be applied to where there is something, and the answer to learn.

    `history`: earlier instructions with their answers, as context.
    """

    instruction: str
    output: str
    input: str | None = None
    system: str | None = None
    history: list[tuple[str, str]] | None = None


class Conversation(Struct, frozen=True, gc=False):
    """A conversation whose assistant turns are to be learned. `tools`: those that can be called, or their JSON."""

    messages: list[Message]
    system: str | None = None
    tools: list[dict[str, Any]] | str | None = None


class SharedTurn(Struct, frozen=True, gc=False):
    """One turn as ShareGPT spells it, or as OpenAI does."""

    sender: str | None = field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | None = None
    weight: float | None = None
    train: bool | None = None


class SharedConversation(Struct, frozen=True, gc=False):
    """A conversation as ShareGPT spells it. `tools`: those that can be called, or their JSON."""

    conversations: list[SharedTurn]
    system: str | None = None
    tools: list[dict[str, Any]] | str | None = None


class Text(Struct, frozen=True, gc=False):
    """A text to learn as it stands."""

    text: str


class DocumentSummary(Struct, frozen=True, gc=False):
    """A text and its summary."""

    document: str
    summary: str


class ArticleHighlights(Struct, frozen=True, gc=False):
    """An article and its summary."""

    article: str
    highlights: str


class QuestionAnswer(Struct, frozen=True, gc=False):
    """A question, and its answer as it stands in the context; an empty one says that there is none.

    `answer_start`: the character at which the answer begins, from 0; without it the first place counts.
    """

    context: str
    question: str
    answer: str
    answer_start: int | None = None


class SquadAnswers(Struct, frozen=True, gc=False):
    """Answers, and the characters of the context at which they begin."""

    text: list[str]
    answer_start: list[int]


class Squad(Struct, frozen=True, gc=False):
    """A question, and where its answers stand in the context; no answers say that there is none."""

    context: str
    question: str
    answers: SquadAnswers


class Preference(Struct, frozen=True, gc=False):
    """A prompt, the answer that is wanted, and one that is not.

    `prompt`: it may stand at the beginning of both answers instead, or as well. `tools`: no strategy learns from them.
    """

    chosen: str | list[Message]
    rejected: str | list[Message]
    prompt: str | list[Message] | None = None
    system: str | None = None
    tools: Any = None


Record = (
    InputOutput
    | PromptCompletion
    | Alpaca
    | Conversation
    | SharedConversation
    | Text
    | DocumentSummary
    | ArticleHighlights
    | QuestionAnswer
    | Squad
    | Preference
)

FORMATS: dict[DatasetFormat, type[Record]] = {
    "input_output": InputOutput,
    "prompt_completion": PromptCompletion,
    "alpaca": Alpaca,
    "messages": Conversation,
    "conversations": SharedConversation,
    "text": Text,
    "document_summary": DocumentSummary,
    "article_highlights": ArticleHighlights,
    "question_answer": QuestionAnswer,
    "squad": Squad,
    "preferences": Preference,
}
SharedRole = Literal["system", "user", "assistant", "function_call", "tool"]

ROLES: dict[str, SharedRole] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function_call": "function_call",
    "tool_call": "function_call",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
}
"""The roles of the speakers in a ShareGPT conversation; a `function_call` is an assistant's turn that calls a tool."""

_Schemas = list[dict[str, Any]]
_SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def preference_turns(record: Preference) -> tuple[list[Message], list[Message], list[Message]]:
    """The prompt, the chosen and the rejected answer, each as turns; no turns of a prompt where there is none."""
    chosen, rejected = _answer_turns(record.chosen), _answer_turns(record.rejected)
    within = 0
    for place, (one, other) in enumerate(zip(chosen, rejected, strict=False), start=1):
        if one != other:
            break
        if one.role in {"user", "tool"}:
            within = place
    prompt = chosen[:within]
    if not prompt:
        given = record.prompt or []
        prompt = [Message("user", given)] if isinstance(given, str) else given
    if record.system is not None and record.system.strip() and prompt and prompt[0].role != "system":
        prompt = [Message("system", record.system), *prompt]
    return prompt, chosen[within:], rejected[within:]


def _answer_turns(answer: str | list[Message]) -> list[Message]:
    """An answer's turns; a transcript (Human: …, Assistant: …) has the prompt's too."""
    if not isinstance(answer, str):
        return answer
    parts = _SPOKEN.split(answer.strip())
    if len(parts) < 5 or parts[0]:  # noqa: PLR2004 - nothing, and at least two speakers with what they say
        return [Message("assistant", answer)]
    return [Message(_SPEAKERS[speaker], said.strip()) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)]


def text_of(content: str | list[ContentPart] | None) -> str:
    """What is said in a turn; its parts follow each other."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def arguments_of(call: FunctionCall) -> dict[str, Any]:
    """The arguments of a call by their names.

    Raises:
        msgspec.DecodeError: they are no JSON object.
    """
    if not isinstance(call.arguments, str):
        return call.arguments
    return json.decode(call.arguments, type=dict[str, Any]) if call.arguments.strip() else {}


def has_tools(record: Record) -> bool:
    """Whether a record has tools, or calls one: then the model's chat template has to know tools."""
    match record:
        case Conversation(tools=tools, messages=turns):
            return bool(tools) or _calls(turns)
        case PromptCompletion(tools=tools, prompt=prompt, completion=completion):
            return bool(tools) or any(_calls(turns) for turns in (prompt, completion) if not isinstance(turns, str))
        case SharedConversation(tools=tools, conversations=shared):
            roles = (ROLES.get(turn.sender or turn.role or "") for turn in shared)
            return bool(tools) or any(role in {"function_call", "tool"} for role in roles)
        case _:
            return False


def _calls(turns: list[Message]) -> bool:
    return any(turn.tool_calls or turn.role == "tool" for turn in turns)


def calls_of(value: str) -> list[FunctionCall]:
    """The calls in a ShareGPT turn of the role `function_call`: one, or a list.

    Raises:
        msgspec.DecodeError: it is no JSON of calls.
    """
    found = json.decode(value, type=FunctionCall | list[FunctionCall])
    return found if isinstance(found, list) else [found]


def schemas_of(tools: _Schemas | str | None) -> _Schemas:
    """The schemas of tools, each as `{"type": "function", "function": …}`.

    Raises:
        msgspec.DecodeError: they are no JSON list of objects.
    """
    if tools is None:
        return []
    if isinstance(tools, str):
        tools = json.decode(tools, type=_Schemas) if tools.strip() else []
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
