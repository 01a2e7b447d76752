"""The form of a model's chats that its chat template agrees with, on chats of many kinds; and what it has not.

A part on which the two do not agree is left out of the form, and named: a server that writes by it would ask the model
in a way that it was not trained in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from trainer_entry.artifacts.gguf.chats import Call, Chat, Tool, Turn, with_plain_json
from trainer_entry.artifacts.gguf.probing import Undescribed, form_of, with_tools, with_trims
from trainer_entry.data.templates import write_by_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer_entry.artifacts.gguf.chat_form import ChatForm


_MOST_SAID = 200


class Agreed(Struct, frozen=True):
    """The form, where there is one, and what chats have otherwise that are written by it."""

    form: ChatForm | None
    warnings: tuple[str, ...] = ()


def agreed_form(tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...]) -> Agreed:
    """How a model writes chats. It has a chat template; `stops`: the tokens that can end a turn."""

    def write(chat: Chat) -> str:
        return _by_template(tokenizer, chat)

    try:
        form = form_of(write, tokenizer.bos_token, stops)
        form = with_trims(form, write)
    except Undescribed as why:
        return Agreed(None, (f"The chat template is more than a Modelfile can say: {why}.",))
    if not _agrees(form, write, plain_chats()):
        return Agreed(None, ("The chat template is more than a Modelfile can say: it writes some chats otherwise.",))
    warnings: list[str] = []
    if form.system_place != "none" and not _agrees(form, write, system_chats()):
        form = structs.replace(form, system_place="none")
    if form.system_place == "none":
        warnings.append(
            "TEMPLATE leaves out what a system says: the chat template takes none, or writes it in its way."
        )
    form, said = _with_tools(form, write, tokenizer)
    warnings += said
    if not _agrees(form, write, continued_chats()):
        warnings.append(
            "The chat template writes an answer that is to be gone on with in its own way; TEMPLATE does not."
        )
    if form.trims:
        whose = " and ".join(sorted(form.trims))
        warnings.append(f"TEMPLATE leaves spaces at the ends of what {whose} say, which the chat template takes away.")
    if "strftime_now" in str(tokenizer.chat_template):
        warnings.append("The chat template writes the day; TEMPLATE has that on which the model was exported.")
    return Agreed(form, tuple(warnings))


def _with_tools(form: ChatForm, write: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[ChatForm, list[str]]:
    """The form with tools, or why it has none."""
    if "tools" not in str(tokenizer.chat_template):
        return form, []
    try:
        tooled = with_tools(form, write)
    except Undescribed as why:
        return form, [f"TEMPLATE has no tools, which the chat template has: {why}."]
    if not _agrees(tooled, write, tool_chats()):
        return form, ["TEMPLATE has no tools, which the chat template has: it writes some chats with them otherwise."]
    if not _agrees(tooled, write, calls_with_words()):
        return tooled, ["The chat template writes a call otherwise where something is said before it."]
    return tooled, []


def _agrees(form: ChatForm, write: Any, chats: tuple[Chat, ...]) -> bool:
    """Whether form and chat template write the same; a chat that the template refuses says nothing."""
    compared = 0
    for chat in chats:
        try:
            written = write(chat)
        except Undescribed:
            continue
        compared += 1
        if with_plain_json(form.write(chat)) != with_plain_json(written):
            return False
    return compared > 0


def _by_template(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    continued = chat.turns[-1].role == "assistant"
    options = {"continue_final_message": True} if continued else {"add_generation_prompt": True}
    turns, tools = [turn.message() for turn in chat.turns], [tool.schema() for tool in chat.tools]
    try:
        return write_by_template(tokenizer, turns, tools, **options)
    except Exception as error:  # whatever a stranger's template raises
        said = "".join(one if one.isprintable() else " " for one in str(error)[:_MOST_SAID])
        raise Undescribed(said) from error


_HARD = (
    "What is 2 + 2?",
    "Ünïcødé, 漢字, עברית, 👩‍🍳 and a tab\tin it",
    'Braces {"a": 1} {{ .Content }} {% if x %} and "quotes" \\ back',
    "Lines\n\nand more\n  of them",
    "<b>&amp; marks</b> <not a token>",
)


def plain_chats() -> tuple[Chat, ...]:
    """Questions and answers, one and many."""
    asked = tuple(Turn("user", text) for text in _HARD)
    answers = tuple(Turn("assistant", text) for text in reversed(_HARD))
    return (
        *(Chat((one,)) for one in asked),
        Chat((asked[0], answers[0], asked[1])),
        Chat((asked[1], answers[1], asked[2], answers[2], asked[3])),
        Chat((asked[0], answers[3], asked[2], answers[0], asked[3], answers[1], asked[4])),
    )


def continued_chats() -> tuple[Chat, ...]:
    """Chats whose last words are the beginning of an answer."""
    asked = Turn("user", _HARD[0])
    return (
        Chat((asked, Turn("assistant", "It is"))),
        Chat((asked, Turn("assistant", _HARD[2]), asked, Turn("assistant", "As I said,"))),
    )


def system_chats() -> tuple[Chat, ...]:
    """Chats in which a system speaks first."""
    plain = plain_chats()
    return tuple(
        Chat((Turn("system", text), *chat.turns))
        for text in ("You are brief.", _HARD[1])
        for chat in plain[:1] + plain[5:]
    )


def _tools() -> tuple[Tool, ...]:
    text: dict[str, Any] = {"type": "string", "description": "Which city, “quoted” or not"}
    schema: dict[str, Any] = {"type": "object", "properties": {"city": text}, "required": ["city"]}
    none: dict[str, Any] = {"type": "object", "properties": {}}
    return (Tool("weather", "The weather <now>", schema), Tool("now", "The time", none))


def tool_chats() -> tuple[Chat, ...]:
    """Chats with tools: told of, called once, twice and again, answered, with a system and without."""
    tools, asked = _tools(), Turn("user", "How warm is it in Zürich?")
    one = Turn("assistant", "", (Call("weather", {"city": "Zürich & “Bern”"}),))
    two = Turn("assistant", "", (Call("weather", {"city": "Basel"}), Call("now", {})))
    gave, gave_again = Turn("tool", '{"degrees": 21}'), Turn("tool", "12:00")
    said, more = Turn("assistant", "It is 21 degrees."), Turn("user", "And now?")
    turns: tuple[tuple[Turn, ...], ...] = (
        (asked,),
        (asked, one, gave),
        (asked, two, gave, gave_again),
        (asked, one, gave, said, more),
        (asked, two, gave, gave_again, said, more, one, gave),
        (asked, one, gave, two, gave_again, gave),
    )
    system = Turn("system", "You are brief.")
    return tuple(
        Chat(begin + one_chat, used) for begin in ((), (system,)) for one_chat in turns for used in (tools, tools[:1])
    )


def calls_with_words() -> tuple[Chat, ...]:
    """Chats in which something is said before a call."""
    tools, asked = _tools(), Turn("user", "How warm is it?")
    call = Turn("assistant", "I look it up.", (Call("weather", {"city": "Bern"}),))
    return (Chat((asked, call, Turn("tool", "21")), tools),)
