"""Everything that can go wrong and that somebody can do something about.

    ForgeError
    ├── BadInput             what was sent cannot be used; `field` names the part
    │   ├── InvalidDataset   the records of a file; `report` lists them by line
    │   └── ContextExceeded  a prompt that the model has no room for
    ├── NotFound             no job, model, dataset or path of that name
    │   └── ModelNotFound    no model of that name
    ├── Conflict             right in itself, but not now
    ├── TooLarge             more bytes than are accepted
    ├── WrongContentType     a body of another kind than the path takes
    ├── Unauthorized         nobody that this server knows
    ├── Forbidden            a cross-origin request, or one that a token is not good for
    ├── TooManyRequests      more at once, or in a minute, than one client may ask
    ├── UnknownHost          the Host header is not one of ours
    ├── StorageFull          no space left; nothing was changed
    ├── LogUnusable          the event log cannot be opened as it is
    │   └── SegmentDamaged   a segment of the log is not what was written; `position` is where
    ├── SegmentAway          what is asked for lies in a segment of the log that is not here
    ├── LogBeingRead         a server that starts has not read all of its log yet
    ├── DirectoryInUse       another server has this data directory
    ├── SettingsInvalid      a setting cannot be used
    ├── BackupUnusable       a backup cannot be made there, or cannot be put back
    ├── FilesKept            the files of a deleted model or dataset could not be removed
    ├── TooMuchWork          a process of ours would have taken more time or memory than it may have
    ├── LaunchFailed         an attempt's processes could not be started
    └── PlaygroundFailed     a model could not answer, for what it is or for what was asked

Each has a `message` (what, in a few words) and a `detail` (where, and what would work). No HTTP here:
`http/problems.py` is the only place that knows status codes.
"""

import errno

import msgspec

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a file cannot grow: the disk, the quota or the limit on a file is at its end."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One reason not to do what was asked: the part of the request to change, what is wrong, and what would work."""

    field: str | None
    message: str
    remedy: str


class ForgeError(Exception):
    """An error with a message for people. `refusals`: every reason, where several were found at once."""

    refusals: tuple[Refusal, ...] = ()

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message}: {self.detail}" if self.detail else self.message


class BadInput(ForgeError):
    """What was sent cannot be used."""

    def __init__(self, message: str, detail: str = "", *, field: str | None = None) -> None:
        super().__init__(message, detail)
        self.field = field


class LineError(msgspec.Struct, frozen=True, gc=False):
    """One error, or warning, in a dataset. `line` counts from 1."""

    line: int
    field: str | None
    message: str


class DatasetReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a dataset check found. `errors` holds the first 100 of `error_count`, `warnings` of `warning_count`.

    Errors refuse a file; warnings are what a person should check before it is trained on.
    """

    valid: bool
    errors: tuple[LineError, ...] = ()
    error_count: int = 0
    warnings: tuple[LineError, ...] = ()
    warning_count: int = 0


class InvalidDataset(BadInput):
    """The records of a file cannot be trained on."""

    def __init__(self, message: str, detail: str, report: DatasetReport, *, field: str | None = None) -> None:
        super().__init__(message, detail, field=field)
        self.report = report


class ContextExceeded(BadInput):
    """The model has no room for a prompt, or none for an answer to it."""


class NotFound(ForgeError):
    """No such thing."""


class ModelNotFound(NotFound):
    """No model of that name, here or at the hub."""


class Conflict(ForgeError):
    """Right in itself, but not now."""


class TooLarge(ForgeError):
    """More bytes than are accepted."""


class WrongContentType(ForgeError):
    """A body of another kind than the path takes."""


class Unauthorized(ForgeError):
    """Nobody that this server knows: no token, or one that is good for nothing."""


class TooManyRequests(ForgeError):
    """More at once, or in a minute, than one client may ask. `retry_after`: seconds until it is worth trying again."""

    def __init__(self, message: str, detail: str, *, retry_after: int) -> None:
        super().__init__(message, detail)
        self.retry_after = retry_after


class Forbidden(ForgeError):
    """A request of another origin, or one that its token is not good for."""


class UnknownHost(ForgeError):
    """The Host header names none of ours."""


class StorageFull(ForgeError):
    """No space is left; nothing was changed."""


class LogUnusable(ForgeError):
    """The event log cannot be opened, or no longer be written."""


class SegmentDamaged(LogUnusable):
    """A segment of the log is not what was written. `position`: of the first record that cannot be relied on.

    `file`: the name of its file. `last`: the last position in it, as that name says.
    """

    def __init__(self, message: str, detail: str, *, position: int | None, file: str, last: int) -> None:
        super().__init__(message, detail)
        self.position = position
        self.file = file
        self.last = last


class SegmentAway(ForgeError):
    """What is asked for lies in a segment of the log that is not here: it can be put back.

    `file`: the name of its file. `last`: the last position in it.
    """

    def __init__(self, message: str, detail: str, *, file: str, last: int) -> None:
        super().__init__(message, detail)
        self.file = file
        self.last = last


class LogBeingRead(ForgeError):
    """A server that starts has not read all of its log yet; nothing was done."""


class DirectoryInUse(ForgeError):
    """Another server has this data directory."""


class SettingsInvalid(ForgeError):
    """A setting cannot be used."""


class BackupUnusable(ForgeError):
    """A backup cannot be made, or is not whole, or must not be put there."""


class FilesKept(ForgeError):
    """The files of a deleted model or dataset could not be removed."""


class TooMuchWork(ForgeError):
    """A process of ours would have taken more time or memory than it may have, and was ended."""


class TrainersMissing(ForgeError):
    """The server was installed without the libraries of the trainers."""


class LaunchFailed(ForgeError):
    """An attempt's processes could not be started. `disk_full`: for want of space."""

    def __init__(self, message: str, detail: str, *, disk_full: bool = False) -> None:
        super().__init__(message, detail)
        self.disk_full = disk_full


class PlaygroundFailed(ForgeError):
    """A model could not answer, for what it is or for what was asked. `kind`: the failure's name, if it said one."""

    def __init__(self, message: str, detail: str = "", *, kind: str | None = None) -> None:
        super().__init__(message, detail)
        self.kind = kind
