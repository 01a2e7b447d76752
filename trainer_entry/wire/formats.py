"""The record formats of datasets: for each its name, and the type of the JSON object on a line.

The server recognises and checks the records, and the trainer reads them; both by these types.
"""

from typing import Any, Literal

from msgspec import Struct, field

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
    "prompts",
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

    type: str = "text"
    text: str | None = None


class FunctionCall(Struct, frozen=True, gc=False):
    """What is called. `arguments`: an object, or its JSON as OpenAI writes it; some call them `parameters`."""

    name: str
    arguments: str | dict[str, Any] | None = None
    parameters: str | dict[str, Any] | None = None


class ToolCall(Struct, frozen=True, gc=False):
    """A call of a tool in an assistant's turn. `function`: what is called; it may stand in the call itself."""

    function: FunctionCall | None = None
    id: str | None = None
    type: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    parameters: str | dict[str, Any] | None = None


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation.

    `content`: a text, or its parts; it may be missing beside `tool_calls`, which may be JSON in a text. `weight`
    (OpenAI) and `train` (axolotl) say whether an assistant's turn is to be learned; both are so by default.
    """

    role: Role
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | str | None = None
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
    """One turn as ShareGPT spells it, or as OpenAI does, whoever it says that speaks."""

    sender: str | None = field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
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
    `is_impossible`: there is none, which an empty answer says too.
    """

    context: str
    question: str
    answer: str
    answer_start: int | None = None
    is_impossible: bool | None = None


class SquadAnswers(Struct, frozen=True, gc=False):
    """Answers, and the characters of the context at which they begin."""

    text: list[str]
    answer_start: list[int]


class SquadAnswer(Struct, frozen=True, gc=False):
    """One answer, and the character of the context at which it begins."""

    text: str
    answer_start: int


class Squad(Struct, frozen=True, gc=False):
    """A question, and where its answers stand in the context; no answers say that there is none.

    `is_impossible`: that there is none, which no answers say too.
    """

    context: str
    question: str
    answers: SquadAnswers | list[SquadAnswer]
    is_impossible: bool | None = None

    @property
    def listed(self) -> list[SquadAnswer]:
        """The answers one by one."""
        if isinstance(self.answers, list):
            return self.answers
        return [*map(SquadAnswer, self.answers.text, self.answers.answer_start)]


class Preference(Struct, frozen=True, gc=False):
    """A prompt, the answer that is wanted, and one that is not.

    `prompt`: it may stand at the beginning of both answers instead, or as well. `tools`: no strategy learns from them.
    """

    chosen: str | list[Message]
    rejected: str | list[Message]
    prompt: str | list[Message] | None = None
    system: str | None = None
    tools: Any = None


class Prompt(Struct, frozen=True, gc=False):
    """A prompt to which no answer is given: what a policy says is rewarded by functions, or by a reward model."""

    prompt: str | list[Message]
    system: str | None = None


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
    | Prompt
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
    "prompts": Prompt,
}

ANSWER_FIELDS: dict[DatasetFormat, str] = {
    "input_output": "output",
    "prompt_completion": "completion",
    "alpaca": "output",
    "document_summary": "summary",
    "article_highlights": "highlights",
    "preferences": "chosen",
}
"""What the answer is called in a format, where it stands in a field of its own."""
