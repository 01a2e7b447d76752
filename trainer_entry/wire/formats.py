"""The record formats of datasets: for each its name, and the type of the JSON object on a line.

The server recognises and checks the records, and the trainer reads them; both by these types.
"""

from typing import Literal

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
]
Role = Literal["system", "user", "assistant"]


class InputOutput(Struct, frozen=True, gc=False):
    """A prompt and the answer to learn."""

    input: str
    output: str


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation."""

    role: Role
    content: str


class PromptCompletion(Struct, frozen=True, gc=False):
    """A prompt and what follows it, as texts or as turns."""

    prompt: str | list[Message]
    completion: str | list[Message]


class Alpaca(Struct, frozen=True, gc=False):
    """An instruction, what it is to be applied to where there is something, and the answer to learn."""

    instruction: str
    output: str
    input: str | None = None


class Conversation(Struct, frozen=True, gc=False):
    """A conversation whose assistant turns are to be learned."""

    messages: list[Message]


class SharedTurn(Struct, frozen=True, gc=False):
    """One turn as ShareGPT spells it, or as OpenAI does."""

    sender: str | None = field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | None = None


class SharedConversation(Struct, frozen=True, gc=False):
    """A conversation as ShareGPT spells it."""

    conversations: list[SharedTurn]


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
    """A question, and its answer as it stands in the context; an empty one says that there is none."""

    context: str
    question: str
    answer: str


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
    """A prompt, the answer that is wanted, and one that is not."""

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]


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
ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
}
"""The roles of the speakers in a ShareGPT conversation."""
