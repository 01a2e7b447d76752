"""`modelforge help`: topics, each a short page of text in the wheel, and the help of a command."""

from pathlib import Path

import msgspec

from modelforge.cli.flags import WrongUsage
from modelforge.cli.screen import Screen, say
from modelforge.fields import nearest, taken_by
from modelforge.parameter_meanings import MEANINGS
from trainer_entry import wire

TOPICS = {
    "getting-started": "from records to a model that you ask",
    "formats": "what a record may be",
    "strategies": "how a model learns, and from what",
    "parameters": "what --set takes",
    "memory": "what to do where a training takes too much of it",
    "resuming": "stop a training, and go on with it",
    "webhooks": "hear of the end of a job",
    "remote": "a server on another machine, and tokens",
    "exit-codes": "what a command's end is to a shell",
}
"""The topics in the order in which they are listed, with what each is about."""
_FOLDER = Path(__file__).with_name("topics")
_WIDTH = max(map(len, TOPICS)) + 2


def text_of(topic: str) -> str:
    """The page of a topic."""
    return (_FOLDER / f"{topic}.txt").read_text()


def show_topics() -> None:
    """List the topics."""
    for line in ("modelforge help TOPIC, or modelforge help COMMAND", "", "Topics:"):
        say(line)
    for topic, about in TOPICS.items():
        say(f"  {topic:<{_WIDTH}}{about}")
    say("")
    say("`modelforge --help` lists the commands.")


def show_topic(topic: str) -> None:
    """Print the page of a topic; that of the parameters ends with what each means and takes."""
    for line in text_of(topic).splitlines():
        say(line)
    if topic == "parameters":
        _show_parameters()


def nothing_of(word: str, commands: tuple[str, ...]) -> WrongUsage:
    """What to say of a word that is neither a topic nor a command."""
    near = nearest(word, (*TOPICS, *commands))
    meant = near if near.startswith("Did you mean") else "`modelforge help` lists both."
    return WrongUsage(f"There is no topic or command {word!r}", meant)


def _show_parameters() -> None:
    names = wire.TrainingParameters.__struct_fields__
    width = max(map(len, names)) + 2
    screen = Screen()
    for name in names:
        value = getattr(wire.TrainingParameters(), name)
        default = (
            "" if value is None else f" ({value if isinstance(value, str) else msgspec.json.encode(value).decode()})"
        )
        takes = taken_by(wire.TrainingParameters, name).removeprefix("It takes ").removesuffix(".")
        meaning = MEANINGS[name].replace("`", "")
        screen.hang(f"  {name:<{width}}", f"{meaning}. Takes {takes.removesuffix(' or null')}{default}")
