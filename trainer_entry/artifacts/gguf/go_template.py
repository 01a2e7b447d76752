"""A `ChatForm` as the template of an Ollama `Modelfile`: Go's text/template, over the data that Ollama has.

https://docs.ollama.com/template: `.Messages` with `.Role`, `.Content` and `.ToolCalls`, turns of one role after another
put together; `.System`, all that the system says; `.Tools`. Of its functions only `json` is used beside Go's own.
Ollama finds calls in an answer by the text that follows the first `if .ToolCalls`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer_entry.artifacts.gguf.chat_form import ChatForm, ToolForm

ANY_PROMPT = "{{ .Prompt }}"
"""The template of a model that writes on what it is given."""


def go_template(form: ChatForm, *, begins: bool, opening: str = "") -> str:
    """The form as a template, after `opening`. `begins`: Ollama itself puts the token there that begins a text."""
    system_speaks = '(and .Messages (eq (index .Messages 0).Role "system"))'
    speaks = system_speaks if form.system_place == "turn" else None
    parts = [_text(opening + ("" if begins else form.begin)), '{{ $before := "" }}']
    parts.append(_opening(form, speaks))
    parts.append("{{ range $place, $turn := .Messages }}")
    parts.append(_closing(form, '(ne .Role "tool")'))
    parts.append(_turns(form))
    parts.append("{{ $before = .Role }}{{ end }}")
    asked = f"{_closing_answers(form, None)}{_text(form.prompt)}"
    if asked:
        parts.append(f'{{{{ if ne $before "assistant" }}}}{asked}{{{{ end }}}}')
    return "".join(parts)


def _opening(form: ChatForm, speaks: str | None) -> str:
    """What stands before the first turn, where that is no system's."""
    silent = _text(form.default)
    if form.tools is not None:
        silent = f"{{{{ if .Tools }}}}{_told(form.tools, form.tools.alone)}{_otherwise(silent)}{{{{ end }}}}"
    if not silent:
        return ""
    return silent if speaks is None else f"{{{{ if not {speaks} }}}}{silent}{{{{ end }}}}"


def _told(form: ToolForm, head: str) -> str:
    each = "{{ json $tool }}" if form.whole else "{{ json $tool.Function }}"
    between = f"{{{{ if $number }}}}{_text(form.between)}{{{{ end }}}}" if form.between else ""
    listed = f"{{{{ range $number, $tool := $.Tools }}}}{between}{each}{{{{ end }}}}"
    return f"{_text(head)}{listed}{_text(form.end)}"


def _otherwise(text: str) -> str:
    return f"{{{{ else }}}}{text}" if text else ""


def _closing(form: ChatForm, follows: str) -> str:
    """What ends the turn before, at the beginning of the next."""
    ended = _text(form.assistant.after)
    return (f'{{{{ if eq $before "assistant" }}}}{ended}{{{{ end }}}}' if ended else "") + _closing_answers(
        form, follows
    )


def _closing_answers(form: ChatForm, follows: str | None) -> str:
    ended = "" if form.tools is None else _text(form.tools.answers.after)
    condition = 'eq $before "tool"' if follows is None else f'and (eq $before "tool") {follows}'
    return f"{{{{ if {condition} }}}}{ended}{{{{ end }}}}" if ended else ""


def _turns(form: ChatForm) -> str:
    said = "{{ .Content }}"
    roles = {"system": _system(form), "user": _user(form)}
    if form.tools is None:
        roles["assistant"] = f"{_text(form.assistant.before)}{said}"
    else:
        tools = form.tools
        roles["assistant"] = (
            f"{{{{ if or .Content (not .ToolCalls) }}}}{_text(form.assistant.before)}{said}"
            f"{_otherwise(_text(tools.calls))}{{{{ end }}}}"
            f"{{{{ if .ToolCalls }}}}{{{{ range .ToolCalls }}}}{_text(tools.call.before)}{{{{ .Function.Name }}}}"
            f"{_text(tools.arguments)}{{{{ json .Function.Arguments }}}}{_text(tools.call.after)}"
            "{{ end }}{{ end }}"
        )
        opened = _text(tools.answers.before)
        roles["tool"] = (
            (f'{{{{ if ne $before "tool" }}}}{opened}{{{{ end }}}}' if opened else "")
            + f"{_text(tools.answer.before)}{said}{_text(tools.answer.after)}"
        )  # fmt: skip
    written = {role: text for role, text in roles.items() if text}
    branches = (
        f'{"{{ if" if place == 0 else "{{ else if"} eq .Role "{role}" }}}}{text}'
        for place, (role, text) in enumerate(written.items())
    )
    return f"{''.join(branches)}{{{{ end }}}}"


def _system(form: ChatForm) -> str:
    if form.system_place not in {"turn", "in_user"}:
        return ""
    opened, ended = f"{_text(form.system.before)}{{{{ .Content }}}}", _text(form.system.after)
    if form.tools is None:
        return opened + ended
    first = "and $.Tools (eq $place 0)"
    return f"{opened}{{{{ if {first} }}}}{_told(form.tools, form.tools.after_system)}{_otherwise(ended)}{{{{ end }}}}"


def _user(form: ChatForm) -> str:
    opened = _text(form.user.before)
    match form.system_place:
        case "in_user" if opened:
            opened = f'{{{{ if ne $before "system" }}}}{opened}{{{{ end }}}}'
        case "in_last":
            words = f"{_text(form.system.before)}{{{{ $.System }}}}{_text(form.system.after)}"
            opened += f"{{{{ if and $.System (eq (len (slice $.Messages $place)) 1) }}}}{words}{{{{ end }}}}"
        case _:
            pass
    return f"{opened}{{{{ .Content }}}}{_text(form.user.after)}"


def _text(text: str) -> str:
    """A text as it stands, or quoted where it would be taken for a part of the template, or for no part of a file.

    Ollama's reader of a Modelfile passes over characters that cannot be printed, and ends a text at three quotes.
    """
    plain = all(one.isprintable() or one in "\n\t" for one in text)
    if plain and "{{" not in text and '"""' not in text and not text.endswith("{"):
        return text
    quoted = "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in json.dumps(text, ensure_ascii=False))
    return f"{{{{ {quoted} }}}}"
