"""The command line: `serve`; `verify`, `doctor`, `backup` and more for its data; a client: `train`, `watch`, `stop`."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from modelforge.cli.screen import complain, say, say_json
from modelforge.errors import ForgeError
from modelforge.layout import Layout
from modelforge.server_log import configure_log
from modelforge.settings import load_settings
from modelforge.version import VERSION

_URL = "http://127.0.0.1:8000"
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 on success, 1 for an error that is said on stderr, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "serve":
                return _serve(options)
            case "verify":
                return _verify(options)
            case "replay":
                return _replay(options)
            case "doctor":
                return _doctor(options)
            case "backup" | "restore":
                from modelforge.cli import backup_commands

                return backup_commands.run(options, _layout(options))
            case _:
                pass
        from modelforge.cli import client_commands

        return asyncio.run(client_commands.run(options))
    except ForgeError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _serve(options: argparse.Namespace) -> int:
    import uvloop

    from modelforge.app import serve

    flags = {
        name: value
        for name in (
            "host",
            "port",
            "data_dir",
            "dataset_roots",
            "model_roots",
            "allowed_hosts",
            "insecure_bind",
            "max_concurrent_jobs",
        )
        if (value := getattr(options, name)) is not None
    }
    settings = load_settings(flags)
    configure_log()
    uvloop.run(serve(settings))
    return 0


def _layout(options: argparse.Namespace) -> Layout:
    flags = {} if options.data_dir is None else {"data_dir": options.data_dir}
    return Layout(load_settings(flags).data_dir)


def _verify(options: argparse.Namespace) -> int:
    from modelforge import audit

    found = audit.verify(_layout(options))
    for line in audit.broken_records(found):
        say(line)
    compared = "no snapshot" if found.snapshot is None else f"the snapshot at {found.snapshot}"
    say(f"{found.records} records, {compared}, {len(found.faults)} faults. Last digest: {found.digest}")
    return 1 if found.faults else 0


def _replay(options: argparse.Namespace) -> int:
    from modelforge import audit

    say_json(msgspec.json.encode(audit.state_at(_layout(options), options.at)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from modelforge.doctor import examination, finding

    findings = examination.examine(_layout(options))
    for line in finding.lines(findings):
        say(line)
    return 1 if any(found.level == "problem" for found in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelforge", description="Fine-tune language models on your own machine.")
    parser.add_argument("--version", action="version", version=f"modelforge {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        help="another name that this server is reached by; may be repeated",
    )
    serve.add_argument(
        "--insecure-bind",
        action="store_true",
        default=None,
        help="listen on an address that others can reach, though nobody is asked who they are",
    )

    serve.add_argument("--max-concurrent-jobs", type=int, help="how many jobs may train at once (1)")

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data-dir", type=Path, help="the data directory; a server may run on it meanwhile")
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

    client = argparse.ArgumentParser(add_help=False)
    client.add_argument(
        "--url", default=os.environ.get("MODELFORGE_URL", _URL), help=f"the server ($MODELFORGE_URL, else {_URL})"
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
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
