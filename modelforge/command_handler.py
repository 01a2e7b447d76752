"""The one writer: decide, append, publish. Every change goes through here, one transaction after the other."""

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
    is_figures_alone,
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

    While a transaction is written the next one is decided, on the state that the log will have after it; what waits
    when that begins is written in it. Nobody hears of either before it is durable: `on_append` sees the records of a
    transaction once they are on the disk and in the state, and then everybody is answered, who was refused too. A
    transaction that the disk has no room for is taken back, and what was decided after it is decided anew.
    `redact` takes secrets out of what is written.
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
        self._written: _Draft | None = None
        self._next = self._draft_on(state, digest)
        self._ends = False
        self._unusable: LogUnusable | None = None

    @property
    def state(self) -> State:
        """The state after the last durable record; not to be changed by the reader."""
        return self._state

    @property
    def digest(self) -> str:
        """The digest of the last durable record."""
        return self._digest

    async def submit(self, message: Command | Report, *, actor: Actor = API, cause: int | None = None) -> Outcome:
        """Decide a command or take in a report; returns when all of it is on the disk.

        Once the writer ends, nobody is taken in any more, nor answered: whoever asks then is about to be ended himself.

        Raises:
            NotFound, Conflict: the command cannot be carried out; nothing was recorded.
            Unauthorized: the token of who asks was revoked before it was this command's turn.
            StorageFull: no space is left; nothing was recorded.
            LogUnusable: the log failed; the server has to be started anew.
        """
        if self._unusable is not None:
            raise self._unusable
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if not self._ends:  # or those who ask again once they are answered would keep it from ending
            self._waiting.append(_Submission(message, actor, cause, done))
            self._wake.set()
        return await done  # who goes away takes the answer along, and not what was submitted

    async def run(self) -> None:
        """Write until cancelled; what was submitted before that is written first.

        Raises:
            LogUnusable: the log failed. Nothing is tried again: only opening it anew shows what is on disk.
        """
        try:
            try:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    self._advance()
            except asyncio.CancelledError:
                self._ends = True
                self._advance()
                while self._written is not None:
                    await asyncio.wait({self._written.commit})
                    self._advance()
                raise
        except Exception as error:
            self._give_up(error if isinstance(error, LogUnusable) else LogUnusable("The writer failed", repr(error)))
            raise

    def _advance(self) -> None:
        """Do all that can be done now: end the transaction that was written, decide what waits, begin the next."""
        if self._written is not None and self._written.commit.done():
            self._end(self._written)
        waiting, self._waiting = self._waiting, []
        for submission in waiting:
            self._next.take(submission)
        if self._written is None:
            self._begin(self._next)

    def _begin(self, draft: "_Draft") -> None:
        if not draft.records:
            draft.answer()  # all that it stands on is durable
            return
        draft.commit = asyncio.get_running_loop().create_task(self._log.append(draft.records))
        draft.commit.add_done_callback(lambda _: self._wake.set())
        self._written, self._next = draft, self._draft_on(draft.state, draft.digest)

    def _end(self, written: "_Draft") -> None:
        """Make public what was written; or take it back, where the disk is full."""
        try:
            written.commit.result()
        except StorageFull as error:
            self._waiting[:0] = self._next.submissions()  # they were decided on what never came to be
            self._written, self._next = None, self._draft_on(self._state, self._digest)
            written.answer(error)
            return
        self._state.adopt(written.state, self._next.state)
        self._next.rebase(self._state)
        self._digest = written.digest
        self._on_append(written.records)
        self._written = None
        written.answer()

    def _give_up(self, error: LogUnusable) -> None:
        """Tell everybody who waits, and whoever comes."""
        self._unusable = error
        if self._written is not None:
            self._written.answer(error)
        self._next.answer(error)
        for submission in self._waiting:
            _settle(submission, error)

    def _draft_on(self, state: State, digest: str) -> "_Draft":
        return _Draft(state, digest, self._place, self._redact)


class _Draft:
    """A transaction in the making, on a state that is not changed by it. `commit`: what writes it, once it is begun."""

    commit: asyncio.Task[None]

    def __init__(self, before: State, digest: str, place: Place, redact: Redaction) -> None:
        self._before = before
        self._digest_before = digest
        self._place = place
        self._redact = redact
        self._taken: list[tuple[_Submission, Outcome | Exception]] = []
        self._begin()

    def _begin(self) -> None:
        self.state = self._before.draft()
        self.digest = self._digest_before
        self.records: list[Record] = []
        self._at = 0

    def take(self, submission: _Submission) -> None:
        """Decide one more submission. One that fails as nobody foresaw fails alone, and leaves no trace."""
        try:
            self._taken.append((submission, self._decide(submission)))
        except ForgeError as error:
            self._taken.append((submission, error))
        except Exception as error:  # noqa: BLE001 - it is raised where it was submitted
            taken, self._taken = self._taken, []
            self._begin()  # anew without it: there may be half of it
            for earlier, result in taken:
                if isinstance(result, Exception):
                    self._taken.append((earlier, result))
                else:
                    self.take(earlier)
            self._taken.append((submission, error))

    def rebase(self, before: State) -> None:
        """Stand on the state that adopted what this was drafted on, and not on a draft on a draft on a draft."""
        self._before = before

    def submissions(self) -> list[_Submission]:
        """What was decided in it, in order."""
        return [submission for submission, _ in self._taken]

    def answer(self, error: Exception | None = None) -> None:
        """Tell everybody what came of it, or all of them an error; it does no harm to do so again."""
        for submission, result in self._taken:
            _settle(submission, error or result)
        self._taken.clear()

    def _decide(self, submission: _Submission) -> Outcome:
        message, actor, cause = submission.message, submission.actor, submission.cause
        self._at = time.time_ns() // 1000
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
        if not is_figures_alone(message):
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
