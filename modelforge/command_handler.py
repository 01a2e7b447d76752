"""The one writer: decide, append, publish. Every change goes through here, one batch after the other."""

import asyncio
import time
from collections.abc import Callable, Sequence

from msgspec import Raw, Struct

from modelforge.domain.decisions import decide, stamp
from modelforge.domain.messages import (
    API,
    Actor,
    Command,
    Event,
    Kind,
    Message,
    Record,
    Report,
    decode,
    digest_of,
    encode,
    stream_of,
    tag_of,
)
from modelforge.domain.scheduling import Place
from modelforge.domain.state import State, check_actor, check_key, evolve
from modelforge.errors import ForgeError, LogUnusable, StorageFull
from modelforge.event_log.sqlite import EventLog
from trainer_entry.wire.redaction import Redaction


class Outcome(Struct, frozen=True, gc=False):
    """Where a command stands in the log, and the facts that it led to. `repeated`: its key had been used."""

    position: int
    stream: str
    events: tuple[Event, ...] = ()
    repeated: bool = False


class _Submission(Struct):
    message: Command | Report
    actor: Actor
    cause: int | None
    done: asyncio.Future[Outcome]


class CommandHandler:
    """Takes commands and reports from anybody, and writes them in the order in which they came.

    What waits is written in one transaction. `on_append` sees the records of a transaction once they are
    durable and in the state, before anybody is answered. `redact` takes secrets out of what is written.
    """

    def __init__(
        self,
        log: EventLog,
        state: State,
        digest: str,
        on_append: Callable[[Sequence[Record]], None],
        place: Place,
        redact: Redaction | None = None,
    ) -> None:
        self._log = log
        self._state = state
        self._digest = digest
        self._on_append = on_append
        self._place = place
        self._redact = redact or Redaction(())
        self._waiting: list[_Submission] = []
        self._wake = asyncio.Event()
        self._unusable: LogUnusable | None = None

    @property
    def state(self) -> State:
        """What is decided against now; not to be changed by the reader."""
        return self._state

    @property
    def digest(self) -> str:
        """The digest of the last record."""
        return self._digest

    async def submit(self, message: Command | Report, *, actor: Actor = API, cause: int | None = None) -> Outcome:
        """Decide a command or take in a report; returns when all of it is on the disk.

        Raises:
            NotFound, Conflict: the command cannot be carried out; nothing was recorded.
            Unauthorized: the token of who asks was revoked before it was this command's turn.
            StorageFull: no space is left; nothing was recorded.
            LogUnusable: the log failed; the server has to be started anew.
        """
        if self._unusable is not None:
            raise self._unusable
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Submission(message, actor, cause, done))
        self._wake.set()
        return await done  # who goes away takes the answer along, and not what was submitted

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            LogUnusable: the log failed. Nothing is tried again: only opening it anew shows what is on disk.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            try:
                await self._write(batch)
            except Exception as error:
                unusable = error if isinstance(error, LogUnusable) else LogUnusable("The writer failed", repr(error))
                self._unusable = unusable
                for submission in (*batch, *self._waiting):
                    _settle(submission, unusable)
                raise

    async def _write(self, batch: list[_Submission]) -> None:
        draft, results = self._draft(batch)
        if draft.records:
            try:
                await self._log.append(draft.records)
            except StorageFull as error:
                for submission in batch:
                    _settle(submission, error)
                return
            self._state.adopt(draft.state)
            self._digest = draft.digest
            self._on_append(draft.records)
        for submission, result in zip(batch, results, strict=True):
            _settle(submission, result)

    def _draft(self, batch: list[_Submission]) -> tuple["_Draft", list[Outcome | Exception]]:
        """The transaction that a batch leads to; a submission that nobody foresaw fails alone, and leaves no trace."""
        at = time.time_ns() // 1000
        broken: dict[int, Exception] = {}
        while True:
            draft = _Draft(self._state.draft(), self._digest, at, self._place, self._redact)
            results: list[Outcome | Exception] = []
            for index, submission in enumerate(batch):
                if index in broken:
                    results.append(broken[index])
                    continue
                try:
                    results.append(draft.take(submission))
                except ForgeError as error:
                    results.append(error)
                except Exception as error:  # noqa: BLE001 - it is raised where it was submitted
                    broken[index] = error
                    break  # the draft may have half of it: begin anew without it
            else:
                return draft, results


class _Draft:
    """A transaction in the making."""

    def __init__(self, state: State, digest: str, at: int, place: Place, redact: Redaction) -> None:
        self._place = place
        self._redact = redact
        self.state = state
        self.digest = digest
        self.records: list[Record] = []
        self._at = at

    def take(self, submission: _Submission) -> Outcome:
        message, actor, cause = submission.message, submission.actor, submission.cause
        if isinstance(message, Report):
            events = decide(self.state, message, self._place)
            self._record_all(events, cause, actor)
            return Outcome(self.state.position, "", tuple(events))
        check_actor(self.state, actor)
        if (use := check_key(self.state, message.key)) is not None:
            return Outcome(use.position, use.stream, repeated=True)
        command = stamp(self.state, message)
        events = decide(self.state, command, self._place)
        if not events and not actor.startswith(API):
            return Outcome(self.state.position, "")
        recorded = self._record("command", command, cause, actor)
        self._record_all(events, recorded.position, actor)
        return Outcome(recorded.position, recorded.stream, tuple(events))

    def _record_all(self, events: list[Event], cause: int | None, actor: Actor) -> None:
        for event in events:
            self._record("event", event, cause, actor)

    def _record(self, kind: Kind, message: Message, cause: int | None, actor: Actor) -> Record:
        data = encode(message)
        clean = self._redact(data.decode()).encode()
        if clean != data:  # what is kept, and all that is made of it, has no secret
            data, message = clean, decode(kind, clean)
        position, stream, tag = self.state.position + 1, stream_of(message), tag_of(message)
        version = self.state.versions.get(stream, 0) + 1
        self.digest = digest_of(self.digest, position, stream, version, kind, tag, self._at, cause, actor, data)
        record = Record(
            position=position,
            stream=stream,
            version=version,
            kind=kind,
            type=tag,
            at=self._at,
            cause=cause,
            actor=actor,
            data=Raw(data),
            digest=self.digest,
            message=message,
        )
        evolve(self.state, record)
        self.records.append(record)
        return record


def _settle(submission: _Submission, result: Outcome | Exception) -> None:
    if submission.done.done():
        return
    if isinstance(result, Exception):
        submission.done.set_exception(result)
        submission.done.exception()  # a caller that has gone away leaves no warning
    else:
        submission.done.set_result(result)
