"""`modelforge chat`: questions to a model, each answered as it comes; none of them knows those before."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated

from cyclopts import Parameter

from modelforge.cli.answers import Answer, Piece
from modelforge.cli.connection import connect
from modelforge.cli.flags import LOCAL, AtServer, Server
from modelforge.cli.screen import say_json
from modelforge.connection import Connection, decoded
from modelforge.visible_text import visible_lines

_PROMPT = "> "


async def chat(
    question: Annotated[str | None, Parameter(help="ask this only; without it, line by line until Ctrl-D")] = None,
    /,
    *,
    model: Annotated[
        str | None,
        Parameter(help="the number of a trained model, or a base model, named as for a training (the newest's base)"),
    ] = None,
    base: Annotated[bool, Parameter(help="ask the base of the trained model, to compare")] = False,
    context: Annotated[str | None, Parameter(help="for question answering, the text that the answer stands in")] = None,
    temperature: Annotated[float | None, Parameter(help="0 always takes the likeliest token (0.7)")] = None,
    max_new_tokens: Annotated[int | None, Parameter(help="where an answer is cut off (256)")] = None,
    seed: Annotated[int | None, Parameter(help="the same answer again, at any temperature")] = None,
    server: AtServer = LOCAL,
) -> int:
    """Ask a model; without a question, line by line, from the terminal or a pipe.

    Every question stands alone: the server keeps no conversation.
    """
    asked: dict[str, object] = {"stream": True}
    if model is not None and model.isdecimal():
        asked |= {"model_id": int(model), "base_model": base}
    elif model is not None:
        asked["base_model"] = model
    given = {"context": context, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
    asked |= {name: value for name, value in given.items() if value is not None}
    async with connect(server) as client:
        if question is not None:
            await _ask(client, {**asked, "prompt": question}, server)
            return 0
        async for line in _questions():
            await _ask(client, {**asked, "prompt": line}, server)
    return 0


async def _questions() -> AsyncIterator[str]:
    """What is typed, a line a question, until the end of the input."""
    shown = _PROMPT if sys.stdin.isatty() else ""
    while True:
        sys.stderr.write(shown)
        sys.stderr.flush()
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            sys.stderr.write("\n" if shown else "")
            return
        if line.strip():
            yield line.strip()


async def _ask(client: Connection, body: dict[str, object], server: Server) -> None:
    """Print one answer, as it comes."""
    said = ""
    async for event, data in client.stream("/api/playground/generate", body):
        if event == "token" and not server.json:
            piece = decoded(data, Piece, server.url).text
            said += piece
            _write(piece)
        elif event == "done" and server.json:
            say_json(data)
        elif event == "done":
            answer = decoded(data, Answer, server.url)
            if not said:
                _write(answer.generated_text or "(no answer)")
            cut = "" if answer.finish_reason != "length" else " […] (cut off: --max-new-tokens takes more)"
            _write(f"{cut}\n")


def _write(text: str) -> None:
    sys.stdout.write(visible_lines(text))
    sys.stdout.flush()
