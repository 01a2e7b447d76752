"""`modelforge chat`: a model is asked, and answers as it goes; on a terminal it knows what was said before."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

from cyclopts import Parameter

from modelforge.cli.answers import Answer, ModelList, Piece
from modelforge.cli.connection import connect, path_of
from modelforge.cli.flags import LOCAL, AtServer, Server
from modelforge.cli.screen import complain, say_json
from modelforge.cli.training_flags import named_model
from modelforge.cli.wording import in_words_of_the_command_line
from modelforge.connection import Connection
from modelforge.projections.models import ModelDetails
from modelforge.server_answers import RequestRefused, decoded
from modelforge.visible_text import visible, visible_lines

_PROMPT = "> "
_ANEW = "/new"
_KEYS = f"Ctrl-C ends an answer, Ctrl-D the chat; {_ANEW} begins it anew."
_TALKS = "text-generation"


def chat(
    question: Annotated[str | None, Parameter(help="ask this only; without it, line by line until Ctrl-D")] = None,
    /,
    *,
    model: Annotated[
        str | None,
        Parameter(help="the number of a trained model, or a base model, named as for a training (the newest one)"),
    ] = None,
    base: Annotated[bool, Parameter(help="ask the base of the trained model, to compare")] = False,
    alone: Annotated[bool, Parameter(help="ask each question for itself, on a terminal too")] = False,
    context: Annotated[str | None, Parameter(help="for question answering, the text that the answer stands in")] = None,
    temperature: Annotated[float | None, Parameter(help="0 always takes the likeliest token (0.7)")] = None,
    max_new_tokens: Annotated[int | None, Parameter(help="where an answer is cut off (256)")] = None,
    seed: Annotated[int | None, Parameter(help="the same answer again, at any temperature")] = None,
    server: AtServer = LOCAL,
) -> int:
    """Ask a model; without a question, line by line, from the terminal or a pipe.

    On a terminal, a model that writes texts is told what was said before, which the server does not keep; what comes
    from a pipe stands alone, line by line.

    As in: modelforge chat --model 1 "What is a volcano?"
    """
    given = {"context": context, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
    asked: dict[str, object] = {"stream": True, **{name: value for name, value in given.items() if value is not None}}
    with asyncio.Runner() as runner:
        body, name, task = runner.run(_choose(model, server, base=base))
        asked |= body
        if question is not None:
            runner.run(_ask({**asked, "prompt": question}, server))
        elif sys.stdin.isatty():
            sys.stderr.write(f"{visible(name)}.\n{_KEYS}\n")
            _converse(runner, asked, server, remembers=not alone and task == _TALKS and context is None)
        else:
            for line in filter(None, map(str.strip, sys.stdin)):
                runner.run(_ask({**asked, "prompt": line}, server))
    return 0


async def _choose(model: str | None, server: Server, *, base: bool) -> tuple[dict[str, object], str, str]:
    """Who is asked: the fields that say so, a name for people, and the task."""
    if model is not None and not model.isdecimal():
        return {"base_model": named_model(model)}, model, _TALKS
    async with connect(server) as client:
        number = await _newest(client) if model is None else int(model)
        if number is None:
            return {}, "The built-in model, for none was trained yet", _TALKS
        details = await client.get(path_of("models", number), ModelDetails)
    name = f"The base of model {number}, {details.base_model}" if base else f"Model {number}, {details.name}"
    return {"model_id": number, "base_model": base}, name, details.task


async def _newest(client: Connection) -> int | None:
    """The number of the model that was trained last."""
    return max((one.id for one in (await client.get("/api/models", ModelList)).models), default=None)


def _converse(runner: asyncio.Runner, asked: dict[str, object], server: Server, *, remembers: bool) -> None:
    """Ask what is typed, a line a question, until the end of the input.

    Raises:
        KeyboardInterrupt: Ctrl-C where nothing is asked, twice.
    """
    said: list[dict[str, str]] = []
    for line in _typed():
        if line == _ANEW:
            said.clear()
            continue
        said.append({"role": "user", "content": line})
        body = {"messages": said} if remembers and len(said) > 1 else {"prompt": line}
        try:
            answer = runner.run(_ask({**asked, **body}, server))
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            said.pop()
        except RequestRefused as refusal:
            complain(in_words_of_the_command_line(refusal))
            said.pop()
            if "messages" in body:
                sys.stderr.write(f"{_ANEW} begins the chat anew.\n")
        else:
            said.append({"role": "assistant", "content": answer})


def _typed() -> Iterator[str]:
    """The lines that are typed, which may be edited and found again with the arrows."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - `input` has arrows from it
    interrupted = False
    while True:
        try:
            line = input(_PROMPT).strip() if sys.stdout.isatty() else _read_line().strip()
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            sys.stderr.write("\nCtrl-D ends the chat, and so does Ctrl-C once more.\n")
            continue
        interrupted = False
        if line:
            yield line


def _read_line() -> str:
    """A line, asked for on stderr: stdout has the answers.

    Raises:
        EOFError: there is none.
    """
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


async def _ask(body: dict[str, object], server: Server) -> str:
    """Print one answer, as it comes; all of it is returned."""
    said, whole = "", ""
    async with connect(server) as client:
        async for event, data in client.stream("/api/playground/generate", body):
            if event == "token" and not server.json:
                piece = decoded(data, Piece, server.url).text
                said += piece
                _write(piece)
            elif event == "done":
                answer = decoded(data, Answer, server.url)
                whole = answer.generated_text
                if server.json:
                    say_json(data)
                    continue
                if not said:
                    _write(whole or "(no answer)")
                cut = "" if answer.finish_reason != "length" else " […] (cut off: --max-new-tokens takes more)"
                _write(f"{cut}\n")
    return whole


def _write(text: str) -> None:
    sys.stdout.write(visible_lines(text))
    sys.stdout.flush()
