"""Finds how a model writes chats: its chat template writes some with marks for contents; what stands between is read.

Whether what is found holds for other chats is looked at afterwards, by `agreement`.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, structs

from trainer_entry.artifacts.gguf.chat_form import Around, ChatForm, SystemPlace, ToolForm
from trainer_entry.artifacts.gguf.chats import Call, Chat, Tool, Turn, objects_in

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYSTEM, _ASKED, _SAID, _ASKED_AGAIN = "sysmark", "askmark", "saymark", "againmark"
_CALLED, _CALLED_AGAIN = "firstcall", "secondcall"
_GAVE, _GAVE_AGAIN = "firstgiven", "secondgiven"
_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
_TOOLS = (Tool(_CALLED, "first", _SCHEMA), Tool(_CALLED_AGAIN, "second", _SCHEMA))
_ARGUMENTS = {"place": "argmark"}


class Undescribed(Exception):
    """A chat template does something that is not said by what stands around contents."""


class Writer(Protocol):
    """Writes a chat by a model's chat template."""

    def __call__(self, chat: Chat) -> str:
        """The chat, up to where the answer begins; whatever a template raises is an `Undescribed`."""
        ...


class _Ends(Struct, frozen=True):
    """The tokens at the edges of a model's texts: what begins one, and what may end a turn."""

    begin: str | None
    stops: tuple[str, ...]

    def cut(self, text: str) -> int | None:
        """Where the turn before ends: after the last token that can end one, and the lines after it."""
        ends = [text.rfind(stop) + len(stop) for stop in self.stops if stop in text]
        if not ends:
            return None
        end = max(ends)
        return end + len(text[end:]) - len(text[end:].lstrip("\n"))


def form_of(write: Writer, begin: str | None, stops: Sequence[str]) -> ChatForm:
    """How a model writes chats without tools.

    Raises:
        Undescribed: not by what stands around contents.
    """
    ends = _Ends(begin, tuple(stops))
    asked = Turn("user", _ASKED)
    head, tail = _between(write(Chat((asked,))), _ASKED)
    chat = Chat((asked, Turn("assistant", _SAID), Turn("user", _ASKED_AGAIN)))
    again_head, to_answer, to_question, again_tail = _between(write(chat), _ASKED, _SAID, _ASKED_AGAIN)
    if (again_head, again_tail) != (head, tail):
        raise Undescribed("the first turn, or the last, is written otherwise where there are others")
    cut = ends.cut(to_answer)
    shared = _common_beginning(to_answer, tail)
    user_after = shared if cut is None or cut > len(shared) else to_answer[:cut]
    cut = ends.cut(to_question)
    before_user = _common_ending(to_question, head) if cut is None else to_question[cut:]
    if not head.endswith(before_user):
        raise Undescribed("a first question is written otherwise than a later one")
    opening = head.removesuffix(before_user)
    begins = bool(begin) and opening.startswith(begin or "") and not before_user.startswith(begin or "")
    form = ChatForm(
        begin=(begin or "") if begins else "",
        default=opening.removeprefix(begin or "") if begins else opening,
        system=Around(),
        system_place="none",
        user=Around(before_user, user_after),
        assistant=Around(to_answer.removeprefix(user_after), to_question.removesuffix(before_user)),
        prompt=tail.removeprefix(user_after),
    )
    return _with_system(form, write)


def _with_system(form: ChatForm, write: Writer) -> ChatForm:
    """The form, with where the system's words stand; as it is where they stand nowhere."""
    system, asked, said = Turn("system", _SYSTEM), Turn("user", _ASKED), Turn("assistant", _SAID)
    try:
        written = write(Chat((system, asked, said, Turn("user", _ASKED_AGAIN))))
    except Undescribed:
        return form
    if written.count(_SYSTEM) != 1:
        return form
    if written.index(_SYSTEM) < written.index(_ASKED):
        head, inner, _ = _between(written, _SYSTEM, _ASKED, rest=True)
        place: SystemPlace = "turn" if inner.endswith(form.user.before) else "in_user"
        return _placed(form, place, head.removeprefix(form.begin), inner)
    if written.index(_SAID) < written.index(_SYSTEM):
        _, head, inner, _ = _between(written, _SAID, _SYSTEM, _ASKED_AGAIN, rest=True)
        opened = f"{form.assistant.after}{form.user.before}"
        if head.startswith(opened):
            around = Around(head.removeprefix(opened), inner)
            return structs.replace(form, system=around, system_place="in_last")
    return form


def _placed(form: ChatForm, place: SystemPlace, head: str, inner: str) -> ChatForm:
    """The system's words before the first question; `inner` stands between the two."""
    # Its turn begins as others do whose words a system gives by default, and not with those.
    after = inner.removesuffix(form.user.before) if place == "turn" else inner
    return structs.replace(form, system=Around(head, after), system_place=place)


def with_trims(form: ChatForm, write: Writer) -> ChatForm:
    """The form, with whose contents lose the spaces at their ends."""
    asked, trims = Turn("user", _ASKED), set[str]()
    for role, chat in (
        ("system", Chat((Turn("system", f" {_SYSTEM} "), asked))),
        ("user", Chat((Turn("user", f" {_ASKED} "),))),
        ("assistant", Chat((asked, Turn("assistant", f" {_SAID} "), Turn("user", _ASKED_AGAIN)))),
    ):
        if role == "system" and form.system_place == "none":
            continue
        bare = structs.replace(form, trims=frozenset({role}))
        written = write(chat)
        if written != form.write(chat) and written == bare.write(chat):
            trims.add(role)
    return structs.replace(form, trims=frozenset(trims))


def with_tools(form: ChatForm, write: Writer) -> ChatForm:
    """The form, with how tools are told of, called and answered.

    Raises:
        Undescribed: not by what stands around contents.
    """
    asked = Turn("user", _ASKED)
    alone, between, end, whole = _told(write(Chat((asked,), _TOOLS)), _ASKED, form)
    after_system = alone
    if form.system_place == "turn":
        system = write(Chat((Turn("system", _SYSTEM), asked), _TOOLS))
        opened = f"{form.begin}{form.system.before}{_SYSTEM}"
        if not system.startswith(opened):
            raise Undescribed("tools stand before the system's words")
        after_system, *rest = _told(system.removeprefix(opened), _ASKED, form)
        if rest != [between, end, whole]:
            raise Undescribed("tools are written otherwise where a system speaks")
    calls = (Call(_CALLED, _ARGUMENTS), Call(_CALLED_AGAIN, _ARGUMENTS))
    turns = (asked, Turn("assistant", "", calls), Turn("tool", _GAVE), Turn("tool", _GAVE_AGAIN))
    written = write(Chat(turns, _TOOLS))
    written = written[written.index(_ASKED) + len(_ASKED) :]
    before, arguments, after_first = _called(written, _CALLED)
    to_second, arguments_again, rest_of_it = _called(after_first, _CALLED_AGAIN)
    if arguments != arguments_again or not before.startswith(form.user.after):
        raise Undescribed("a second call is written otherwise than the first")
    before = before.removeprefix(form.user.after)
    call_before = _common_ending(before, to_second)
    call_after = to_second.removesuffix(call_before)
    to_given, to_given_again, tail = _between(rest_of_it, _GAVE, _GAVE_AGAIN)
    answer_before = _common_ending(to_given, to_given_again)
    answer_after = to_given_again.removesuffix(answer_before)
    ended = f"{call_after}{form.assistant.after}"
    if not (to_given.startswith(ended) and tail.startswith(answer_after) and tail.endswith(form.prompt)):
        raise Undescribed("the turn of a call does not end as others do")
    return structs.replace(
        form,
        tools=ToolForm(
            alone=alone.removeprefix(form.begin),
            after_system=after_system,
            between=between,
            end=end,
            whole=whole,
            calls=before.removesuffix(call_before),
            call=Around(call_before, call_after),
            arguments=arguments,
            answers=Around(
                to_given.removeprefix(ended).removesuffix(answer_before),
                tail.removeprefix(answer_after).removesuffix(form.prompt),
            ),
            answer=Around(answer_before, answer_after),
        ),
    )


def _told(written: str, asked: str, form: ChatForm) -> tuple[str, str, str, bool]:
    """What stands before, between and after the tools, and whether their type stands around them."""
    for whole in (True, False):
        wanted = [tool.schema() if whole else tool.function() for tool in _TOOLS]
        places = [(begin, end) for begin, end, value in objects_in(written) if value in wanted]
        if len(places) == len(wanted):
            (first, first_end), (second, second_end) = places
            rest = written[second_end:]
            if asked not in rest or not rest[: rest.index(asked)].endswith(form.user.before):
                raise Undescribed("tools do not stand before the first question")
            ended = rest[: rest.index(asked)].removesuffix(form.user.before)
            return written[:first], written[first_end:second], ended, whole
    raise Undescribed("tools are not written as JSON, each by itself")


def _called(written: str, name: str) -> tuple[str, str, str]:
    """What stands before a call's name, between that and its arguments, and after them."""
    if name not in written:
        raise Undescribed("a call is not written")
    before, _, rest = written.partition(name)
    for place in (place for place, one in enumerate(rest) if one == "{"):
        found = objects_in(rest[place:])
        if found and found[0][0] == 0:
            _, end, value = found[0]
            if value == _ARGUMENTS:
                return before, rest[:place], rest[place + end :]
    raise Undescribed("the arguments of a call are not written as JSON after its name")


def _between(text: str, *marks: str, rest: bool = False) -> list[str]:
    """What stands before, between and after marks. `rest`: others may follow.

    Raises:
        Undescribed: one is not there once, in this order.
    """
    pieces = []
    for mark in marks:
        if text.count(mark) != 1 and not (rest and mark in text):
            raise Undescribed("a content is left out, or written more than once")
        before, _, text = text.partition(mark)
        pieces.append(before)
    if not rest and any(mark in text for mark in marks):
        raise Undescribed("contents are written in another order")
    return [*pieces, text]


def _common_ending(one: str, other: str) -> str:
    return _common_beginning(one[::-1], other[::-1])[::-1]


def _common_beginning(one: str, other: str) -> str:
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in same)
