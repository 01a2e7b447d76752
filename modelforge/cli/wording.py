"""What a server says, in the words of the command line: its flags and commands, where the API has fields and routes."""

import re

from modelforge.errors import ForgeError, Refusal
from modelforge.fields import in_detail
from modelforge.server_answers import RequestRefused

_MOST_LINES = 5
_FLAGS = {
    "queue": "--queue",
    "private": "--public",
    "base_model": "--base",
    "model_id": "--model",
    "model_name": "--model",
    "provider": "--provider",
    "strategy": "--strategy",
    "task": "--task",
    "output_name": "--name",
    "repo_id": "--repo",
    "dtype": "--dtype",
    "quantization": "--quantization",
    "context": "--context",
    "columns": "--column",
    "encoding": "--encoding",
    "max_restarts": "--max-restarts",
    "batch_size": "--batch-size",
    "max_samples": "--max-samples",
    "validation_dataset": "--validation-dataset",
}
"""Fields of requests that have a flag of their own; every other one is a parameter, for `--set`."""
_SWITCHES = frozenset({"queue", "private", "base_model"})
_ROUTES = (
    (r"POST /api/models/(\d+)/merge", r"`modelforge models merge \1`"),
    (r"DELETE /api/models/(\d+)", r"`modelforge models delete \1`"),
    (r"GET /api/jobs", "`modelforge jobs`"),
    (r"GET /api/models", "`modelforge models list`"),
    (r"GET /api/datasets", "`modelforge datasets list`"),
    (r"POST /api/upload_dataset", "`modelforge datasets upload`"),
    (r"POST /api/start_training", "`modelforge train`"),
    (r"Send it as 'Authorization: Bearer TOKEN'", "Give it by --token-file, or in MODELFORGE_API_TOKEN"),
)
_OF_SETTINGS = re.compile(r"In (?:the command line|(the environment)): (.*) - at `\$\.(\w+)`", re.DOTALL)
_UNKNOWN = re.compile(r"Unknown field '(\w+)'")
_SEND = re.compile(r'\b(?:([Ss])end )?"(\w+)": (\[[^\]]*\]|"[^"]*"|[\w+-]+(?:\.\w+)*)')
_SEND_NAMED = re.compile(r'\b([Ss])end (?="(?:\w+)",)')


def counted(count: int, noun: str) -> str:
    """A number of things, as in `1 record` and `2 records`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def translated(text: str) -> str:
    """A text of the server, where it names a field or a route, with what to type."""
    for pattern, words in _ROUTES:
        text = re.sub(pattern, words, text)
    return _SEND.sub(_flag, _SEND_NAMED.sub(lambda found: "Set " if found[1] == "S" else "set ", text))


def _flag(found: re.Match[str]) -> str:
    verb = {"S": "Give ", "s": "give ", None: ""}[found[1]]
    name, value = found[2], found[3].strip('"')
    if name in _SWITCHES:
        return f"{verb}{_FLAGS[name]}"
    return f"{verb}{_FLAGS[name]} {value}" if name in _FLAGS else f"{verb}--set {name}={value}"


def in_words_of_the_command_line(error: ForgeError) -> str:
    """An error as it is said on a terminal: all that was found, each on a line of its own where there are several."""
    if not isinstance(error, RequestRefused):
        return _OF_SETTINGS.sub(_setting, translated(str(error)))
    if len(error.refusals) > 1:
        told = [f"  {refusal_in_words(refusal)}" for refusal in error.refusals]
        return "\n".join((f"{len(told)} things speak against it:", *told))
    said = translated(
        f"{_of_parameter(error.message)}: {_with_flag(error.field, error.detail)}" if error.detail else error.message
    )
    if _UNKNOWN.fullmatch(error.message):
        said += " `modelforge help parameters` lists them."
    shown = () if error.validation is None else error.validation.errors[:_MOST_LINES]
    lines = [f"  line {one.line}{f', {one.field}' if one.field else ''}: {one.message}" for one in shown]
    if error.validation is not None and (more := error.validation.error_count - len(shown)) > 0:
        lines.append(f"  and {more} more")
    return "\n".join((said, *lines))


def refusal_in_words(refusal: Refusal) -> str:
    """One of several reasons not to do what was asked."""
    remedy = _with_flag(refusal.field, in_detail(refusal.field, refusal.remedy))
    return translated(f"{_of_parameter(refusal.message)}. {remedy[:1].upper()}{remedy[1:]}")


def _of_parameter(message: str) -> str:
    return _UNKNOWN.sub(r"There is no parameter \1", message)


def _setting(found: re.Match[str]) -> str:
    """A setting that cannot be used, as the flag or the variable that it was given by."""
    name = f"MODELFORGE_{found[3].upper()}" if found[1] else f"--{found[3].replace('_', '-')}"
    return f"{name}: {found[2].replace('`', '').replace('Expected', 'expected')}."


def _with_flag(field: str | None, detail: str) -> str:
    """What is said of a field, said of its flag."""
    if field is None or not detail.startswith((f"{field}: ", f"{field} takes")):
        return detail
    return f"{flag_of(field)}{detail.removeprefix(field)}"


def flag_of(field: str) -> str:
    """What to type for a field of a request."""
    return _FLAGS.get(field, "the dataset" if field in {"dataset", "file"} else f"--set {field}")
