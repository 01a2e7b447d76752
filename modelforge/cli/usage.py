"""What is wrong with a command line, and where it says what would be right."""

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

_KNOWN = " Available commands:"
_KINDS: dict[object, str] = {int: "a whole number", float: "a number"}


def wrong_usage(error: CycloptsError) -> str:
    """What cyclopts found, named by what is typed, and the page that has the rest."""
    command = " ".join(("modelforge", *(error.command_chain or ())))
    page = (
        f"`{command} --help` says what it takes." if error.command_chain else "`modelforge help` lists what there is."
    )
    return f"{_found(error, command)}\n{page}"


def _found(error: CycloptsError, command: str) -> str:
    given = error.unused_tokens or []
    match error:
        case MissingArgumentError(argument=argument) if argument is not None:
            what = f": {argument.parameter.help}" if argument.parameter.help else ""
            named = error.keyword or argument.name
            if error.keyword is not None:
                return f"{named} needs a value{what}."
            return f"`{command}` needs {named if named.startswith('-') else named.upper()}{what}."
        case UnusedCliTokensError():
            words = " ".join(given)
            return f"`{command}` does not take {words!r}."
        case UnknownCommandError() if given and given[0].startswith("-"):
            return f"{given[0]} stands before the command: flags stand behind it, as in `modelforge jobs {given[0]} …`."
        case UnknownCommandError():
            said, _, known = str(error).partition(_KNOWN)
            return said if "Did you mean" in said or not error.command_chain else f"{said}{_KNOWN}{known}"
        case CoercionError(token=token, target_type=kind) if token is not None and kind in _KINDS:
            named = token.keyword or (error.argument.name.upper() if error.argument is not None else "It")
            return f"{named} takes {_KINDS[kind]}, and not {token.value!r}."
        case _:
            return str(error)
