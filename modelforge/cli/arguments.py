"""What the command line takes."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec

from modelforge.domain.access_token import Scope
from modelforge.version import VERSION

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - its only name

_URL = "http://127.0.0.1:8000"


def arguments_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="modelforge", description="Fine-tune language models on your own machine.")
    parser.add_argument("--version", action="version", version=f"modelforge {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data-dir", type=Path, help="the data directory; a server may run on it meanwhile")
    _add_data_commands(commands, data)
    _add_token_commands(commands, data)
    _add_client_commands(commands)
    return parser


def _add_serve(commands: "_Commands") -> None:
    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument("--host", help="the address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="the port (8000); 0 takes a free one and says which")
    serve.add_argument("--data-dir", type=Path, help="where everything lies (~/.local/share/modelforge)")
    serve.add_argument(
        "--dataset-root",
        dest="dataset_roots",
        type=Path,
        action="append",
        help="a folder that datasets may be read from by path; may be repeated (the home and the current directory)",
    )
    serve.add_argument(
        "--model-root",
        dest="model_roots",
        type=Path,
        action="append",
        help="a folder that models may be read from; may be repeated (the home and the current directory)",
    )
    serve.add_argument(
        "--reward-root",
        dest="reward_roots",
        type=Path,
        action="append",
        help="a folder whose Python files trainings may run as reward functions; may be repeated (none)",
    )
    serve.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        help="another name that this server is reached by; may be repeated",
    )
    serve.add_argument(
        "--unix-socket", type=Path, metavar="PATH", help="listen on a socket that only you can use, and on no address"
    )
    serve.add_argument(
        "--require-token", action="store_true", default=None, help="let nobody in without a token, here neither"
    )
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="the certificate (PEM, with its chain) for HTTPS")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key (PEM)")
    serve.add_argument(
        "--behind-proxy",
        action="store_true",
        default=None,
        help="a reverse proxy on the way has TLS, and says who the clients are (X-Forwarded-For)",
    )
    serve.add_argument(
        "--isolate",
        action="store_true",
        default=None,
        help="let trainings, previews and the playground see the files of their work only (needs bubblewrap)",
    )
    serve.add_argument("--max-concurrent-jobs", type=int, help="how many jobs may train at once (1)")


def _add_data_commands(commands: "_Commands", data: argparse.ArgumentParser) -> None:
    commands.add_parser("verify", parents=[data], help="check that the log is what was written, record by record")
    replay = commands.add_parser("replay", parents=[data], help="print status, models and datasets as they once stood")
    replay.add_argument("--at", required=True, help="a position of the log, or a time as in 2026-01-31T12:00:00Z")
    commands.add_parser(
        "doctor", parents=[data], help="say what is wrong with the data and this machine; changes nothing"
    )

    backup = commands.add_parser("backup", parents=[data], help="copy the data directory; a server may run meanwhile")
    backup.add_argument("folder", metavar="DIR", type=Path, help="a folder that is not there yet")
    restore = commands.add_parser("restore", parents=[data], help="check a backup, and make it a data directory again")
    restore.add_argument("folder", metavar="DIR", type=Path, help="a folder that `modelforge backup` wrote")


def _add_token_commands(commands: "_Commands", data: argparse.ArgumentParser) -> None:
    token = commands.add_parser("token", help="make, list and revoke the tokens that clients get in by")
    kinds = token.add_subparsers(dest="kind", required=True, metavar="COMMAND")
    create = kinds.add_parser("create", parents=[data], help="make a token; it is shown once")
    create.add_argument("--name", required=True, help="what it is called, in the log too")
    create.add_argument("--scope", required=True, choices=get_args(Scope), help="what it is good for")
    create.add_argument("--expires", metavar="WHEN", help="30d, 12h, or a moment as in 2027-01-31T12:00:00Z (never)")
    kinds.add_parser("list", parents=[data], help="list the tokens, less the tokens themselves")
    revoke = kinds.add_parser("revoke", parents=[data], help="let nobody in by it any more, at once")
    named = revoke.add_mutually_exclusive_group(required=True)
    named.add_argument("revoked", nargs="?", metavar="NAME", help="the token's name")
    named.add_argument("--name", help="the same")
    kinds.add_parser("link", parents=[data], help="print a link that signs one browser in, once")


def _add_client_commands(commands: "_Commands") -> None:
    client = argparse.ArgumentParser(add_help=False)
    client.add_argument(
        "--token-file", type=Path, help="a file with the token to show; without it, $MODELFORGE_API_TOKEN"
    )
    client.add_argument(
        "--url",
        default=os.environ.get("MODELFORGE_URL", _URL),
        help=f"the server ($MODELFORGE_URL, else {_URL}); unix:PATH for a socket",
    )
    train = commands.add_parser("train", parents=[client], help="upload a dataset and train a model on it")
    train.add_argument("dataset", type=Path, help="a JSONL file")
    train.add_argument("--model", required=True, help="a hub id, a folder, or smollm2-135m-instruct")
    train.add_argument("--task", default="text-generation")
    train.add_argument("--strategy", default="sft", help="sft, qlora, dpo or rlhf")
    train.add_argument("--provider", default="huggingface")
    train.add_argument("--name", dest="output_name", help="a name for the trained model")
    train.add_argument(
        "--set",
        dest="parameters",
        metavar="NAME=VALUE",
        type=parameter,
        action="append",
        default=[],
        help="a training parameter, as in --set num_train_epochs=2; may be repeated",
    )
    train.add_argument("--queue", action="store_true", help="wait for a job that runs, instead of giving up")
    train.add_argument("--watch", action="store_true", help="show the training until its end")
    watch = commands.add_parser("watch", parents=[client], help="show a training until its end")
    watch.add_argument("job_id", nargs="?", help="the job; the current one by default")
    commands.add_parser("jobs", parents=[client], help="list the jobs")
    stop = commands.add_parser("stop", parents=[client], help="save a checkpoint and end a training")
    stop.add_argument("job_id", nargs="?", help="the job; the current one by default")
    stop.add_argument("--all", action="store_true", help="every job: those that wait too")
    checkpoint = commands.add_parser(
        "checkpoint", parents=[client], help="save a checkpoint of a training that goes on"
    )
    checkpoint.add_argument("job_id", nargs="?", help="the job; the current one by default")
    resume = commands.add_parser("resume", parents=[client], help="go on with a job that was stopped or failed")
    resume.add_argument("job_id")
    resume.add_argument("--watch", action="store_true", help="show the training until its end")
    rerun = commands.add_parser("rerun", parents=[client], help="start a job again as a new one, from its records")
    rerun.add_argument("job_id")
    rerun.add_argument("--queue", action="store_true", help="wait for a job that runs, instead of giving up")
    rerun.add_argument("--watch", action="store_true", help="show the training until its end")


def parameter(text: str) -> tuple[str, object]:
    """`NAME=VALUE`, the value as JSON, or else as a text.

    Raises:
        argparse.ArgumentTypeError: it has no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
