"""Every check of the doctor, in the order in which its findings are printed."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator

from modelforge.doctor import attempts, contents, directory
from modelforge.doctor.finding import Finding, unreadable, warning
from modelforge.doctor.log import log_findings, rebuilt_state
from modelforge.doctor.machine import machine_findings
from modelforge.doctor.software import software_findings
from modelforge.errors import SegmentAway
from modelforge.layout import Layout
from modelforge.supervisor.local_attempts import bearers_of


def examine(layout: Layout) -> list[Finding]:
    """Everything that was found in a data directory and on this machine; nothing is changed."""
    return [
        *directory_findings(layout),
        *_checked("machine", machine_findings),
        *_checked("software", software_findings),
    ]


def directory_findings(layout: Layout) -> list[Finding]:
    """What was found in a data directory."""
    return _checked("data directory", lambda: _directory(layout))


def _checked(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check; an error that ended it is a finding too."""
    findings = []
    try:
        for finding in check():
            findings.append(finding)  # noqa: PERF402 - what came before an error counts
    except (OSError, sqlite3.Error) as error:
        findings.append(unreadable(subject, error))
    return findings


def _directory(layout: Layout) -> Iterator[Finding]:
    yield from directory.folder_findings(layout)
    if not directory.can_be_read(layout):
        return
    server = directory.server_of(layout)
    yield from _checked("disk", lambda: directory.disk_findings(layout))
    yield from _checked("file system", lambda: [directory.filesystem_finding(layout)])
    yield directory.server_finding(layout, server)
    # Before the log is read: what is there now and should be is in it then.
    bearers, listing = bearers_of(layout), contents.listing_of(layout)
    of_log = _checked("log", lambda: log_findings(layout))
    yield from of_log
    if any(finding.level == "problem" for finding in of_log):
        remedy = "Run this again once the log is whole."
        yield warning("contents", "not compared with a log that cannot be relied on", remedy)
        return
    try:
        rebuilt = rebuilt_state(layout)
    except SegmentAway as error:
        yield warning(
            "contents", f"not compared with the log: {error}", "A server cannot start either until it is there."
        )
        return
    state = rebuilt.state
    yield from _checked("job", lambda: attempts.attempt_findings(layout, state, server, bearers))
    yield from _checked("dataset", lambda: contents.dataset_findings(layout, listing, state))
    yield from _checked("model", lambda: contents.model_findings(layout, listing, rebuilt.read_models))
    quiet = [job_id for job_id in state.jobs if job_id not in state.running]
    yield from _checked("checkpoint", lambda: contents.checkpoint_findings(layout, quiet))
    yield from contents.unknown_findings(layout, listing, state)
    yield from _checked("leftovers", lambda: contents.leftover_findings(layout, listing, state, server))
