"""The command line: which commands there are, where each stands, and what its end is to a shell."""

import sys
from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from modelforge.cli.flags import WrongUsage
from modelforge.cli.help_page import HelpPage
from modelforge.cli.screen import complain
from modelforge.cli.usage import wrong_usage
from modelforge.cli.wording import in_words_of_the_command_line
from modelforge.errors import ForgeError
from modelforge.version import VERSION

Shell = Literal["bash", "zsh", "fish"]
_COMMANDS = Group("Commands")
_WRONG_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_EPILOGUE = (
    "First steps: modelforge help getting-started. "
    "Exit codes: 0 done, 1 an error that is said or a training that did not complete, 2 wrong usage, 130 Ctrl-C."
)

_TRAININGS = (
    ("train", "training_commands:train", "upload a dataset and train a model on it"),
    ("preflight", "training_commands:preflight", "say what speaks against a training, and what it takes"),
    ("watch", "job_commands:watch", "show a training until its end"),
    ("jobs", "job_commands:jobs", "list the jobs, or show one"),
    ("logs", "job_commands:logs", "print what a trainer wrote; -f: as it comes"),
    ("stop", "job_commands:stop", "save a checkpoint and end a training"),
    ("checkpoint", "job_commands:checkpoint", "save a checkpoint of a training that goes on"),
    ("resume", "job_commands:resume", "go on with a job that was stopped or failed"),
    ("rerun", "job_commands:rerun", "start a job again as a new one, from its records"),
    ("diff", "diff_command:diff", "say in what two jobs differ"),
)
_DATASETS = (
    ("upload", "dataset_commands:upload", "check a file and keep it"),
    ("list", "dataset_commands:list_all", "list the datasets"),
    ("show", "dataset_commands:show", "show one dataset"),
    ("preview", "dataset_commands:preview", "show records, as they are or as a model reads them"),
    ("statistics", "dataset_commands:statistics", "count lengths in a model's tokens"),
    ("delete", "dataset_commands:delete", "delete a dataset and its files"),
)
_MODELS = (
    ("list", "model_commands:list_all", "list the models"),
    ("show", "model_commands:show", "show one model, and what it comes of"),
    ("merge", "model_work_commands:merge", "put an adapter into its base's weights"),
    ("export", "model_work_commands:export", "copy a model out: a folder, an archive, a gguf"),
    ("push", "model_work_commands:push", "upload a model to the hub"),
    ("evaluate", "model_work_commands:evaluate", "judge a model on a dataset"),
    ("delete", "model_commands:delete", "delete a model and its files"),
)
_CHAT = (("chat", "chat_command:chat", "ask a model, again and again"),)
_SERVER = (
    ("demo", "demo_command:demo", "fine-tune a small model on an example, and see what it learned"),
    ("serve", "serving:serve", "run the server"),
    ("events", "log_commands:events", "print the records of the log"),
    ("state", "log_commands:state", "print status, models and datasets as they stand or stood"),
)
_TOKENS = (
    ("create", "token_commands:create", "make a token; it is shown once"),
    ("list", "token_commands:list_all", "list the tokens, less the tokens themselves"),
    ("revoke", "token_commands:revoke", "let nobody in by it any more, at once"),
    ("link", "token_commands:link", "print a link that signs one browser in, once"),
)
_DATA = (
    ("verify", "data_commands:verify", "check that the log is what was written, record by record"),
    ("replay", "data_commands:replay", "print status, models and datasets as they once stood"),
    ("doctor", "data_commands:doctor", "say what is wrong with the data and this machine; changes nothing"),
    ("archive", "data_commands:archive", "move old records of the log into compressed files"),
    ("backup", "data_commands:backup", "copy the data directory; a server may run meanwhile"),
    ("restore", "data_commands:restore", "check a backup, and make it a data directory again"),
)


def command_line(*, listed: bool = True) -> App:
    """The commands; the module of one is loaded once it is asked for.

    `listed`: whether they are told by a few words each, which the list of all is made of; else by their docstrings.
    """
    others = Group("Others", sort_key=9)
    app = App(
        name="modelforge",
        help="Fine-tune language models on your own machine.",
        help_epilogue=_EPILOGUE if listed else None,
        version=f"modelforge {VERSION}",
        version_flags=["--version"],
        default_parameter=Parameter(negative=(), show_env_var=False),
        help_formatter=HelpPage(),
        result_action="return_value",
        group_commands=others,
    )
    server, trainings, things, data = (
        Group(name, sort_key=number)
        for number, name in enumerate(("The server", "Trainings", "Datasets and models", "The data directory"))
    )
    _add(app, _SERVER, server, listed=listed)
    _add(app, _TRAININGS, trainings, listed=listed)
    for number, (name, commands, words) in enumerate(
        (("datasets", _DATASETS, "upload, look at and delete datasets"), ("models", _MODELS, "what was trained"))
    ):
        part = App(name=name, help=words, group=things, sort_key=number - 2, group_commands=_COMMANDS)
        _add(part, commands, None, listed=listed)
        app.command(part)
    _add(app, _CHAT, things, listed=listed)
    _add(app, _DATA, data, listed=listed)
    token = App(
        name="token",
        alias="tokens",
        help="make, list and revoke the tokens that clients get in by",
        group_commands=_COMMANDS,
    )
    _add(token, _TOKENS, None, listed=listed)
    token.group, token.sort_key = (data,), len(_DATA)
    app.command(token)
    app.command(_help, name="help", group=others, help="explain a topic, or a command; alone: list the topics")
    told = "print the completion of bash, zsh or fish" if listed else None
    app.command(_completion_of(app), name="completion", group=others, help=told)
    app["--help"].help, app["--version"].help = "print this, or the help of a command", "print the release"
    return app


def _add(app: App, commands: tuple[tuple[str, str, str], ...], group: Group | None, *, listed: bool) -> None:
    for number, (name, place, words) in enumerate(commands):
        app.command(f"modelforge.cli.{place}", name=name, help=words if listed else None, group=group, sort_key=number)


def _completion_of(app: App) -> Callable[[Shell], int]:
    def completion(shell: Annotated[Shell, Parameter(help="for which shell")], /) -> int:
        """Print the completion of a shell.

        bash: put it into ~/.local/share/bash-completion/completions/modelforge; zsh: into _modelforge in a folder of
        fpath; fish: into ~/.config/fish/completions/modelforge.fish.
        """
        sys.stdout.write(app.generate_completion(shell=shell))
        return 0

    return completion


def _help(*words: Annotated[str, Parameter(name="TOPIC", help="a topic, or a command")]) -> int:
    """Explain a topic, or a command as its --help does; alone, list the topics."""
    from modelforge.cli import help_command

    if not words:
        help_command.show_topics()
        return 0
    if len(words) == 1 and words[0] in help_command.TOPICS:
        help_command.show_topic(words[0])
        return 0
    commands = tuple(name for name in command_line() if not name.startswith("-"))
    if words[0] not in commands:
        raise help_command.nothing_of(words[0], commands)
    return main([*words, "--help"])


def _asks_for_list(given: list[str]) -> bool:
    """Whether the words name no command, or a group of them."""
    words = [word for word in given[:2] if not word.startswith("-")]
    return not words or (len(words) == 1 and words[0] in {"datasets", "models", "token", "tokens"})


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 on success, 1 for an error that is said on stderr, 2 for wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    app = command_line(listed=_asks_for_list(given))
    try:
        return int(app(given, exit_on_error=False, print_error=False) or 0)
    except CycloptsError as error:
        complain(wrong_usage(error))
        return _WRONG_USAGE
    except WrongUsage as error:
        complain(error)
        return _WRONG_USAGE
    except ForgeError as error:
        complain(in_words_of_the_command_line(error))
        return 1
    except BrokenPipeError:  # `modelforge events | head`
        sys.stderr.close()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
