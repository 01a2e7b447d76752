"""The command line: `serve`; `verify`, `doctor`, `backup` and more for its data; a client: `train`, `watch`, `stop`."""

import argparse
import asyncio
import os
import sys

import msgspec

from modelforge.cli.arguments import arguments_parser
from modelforge.cli.screen import complain, say, say_json
from modelforge.errors import ForgeError
from modelforge.layout import Layout
from modelforge.server_log import configure_log
from modelforge.settings import load_settings

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 on success, 1 for an error that is said on stderr, 2 for wrong usage."""
    options = arguments_parser().parse_args(arguments)
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
            case "token":
                return _token(options)
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
    from modelforge.machine.hub_secrets import server_redaction

    flags = {
        name: value
        for name in (
            "host",
            "port",
            "data_dir",
            "dataset_roots",
            "model_roots",
            "reward_roots",
            "allowed_hosts",
            "unix_socket",
            "require_token",
            "behind_proxy",
            "isolate",
            "tls_cert",
            "tls_key",
            "max_concurrent_jobs",
        )
        if (value := getattr(options, name)) is not None
    }
    settings = load_settings(flags)
    configure_log(server_redaction())
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


def _token(options: argparse.Namespace) -> int:
    from modelforge.cli import token_commands

    os.umask(0o077)
    return asyncio.run(token_commands.run(options, _layout(options)))


if __name__ == "__main__":
    sys.exit(main())
