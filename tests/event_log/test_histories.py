"""Any history whatever: replay gives what was live, byte for byte, and the log keeps its promises."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.running_log import RunningLog, first_break, records_in, rows_of, running_log, standing_of
from support.scenario import (
    bad_line,
    checkpoint,
    failed,
    finished,
    gone,
    key,
    lines,
    register_dataset,
    spawned,
    start,
    started,
    step,
    stopped,
)

from modelforge.command_handler import Outcome
from modelforge.domain import dataset, job, model
from modelforge.domain.messages import Command, Report
from modelforge.domain.scheduling import Machine
from modelforge.errors import Conflict, NotFound
from modelforge.event_log.sqlite import LogReader
from modelforge.http.plumbing.frames import recorded_status_frame
from modelforge.projections.read_models import ReadModels
from modelforge.projections.status_messages import History, Part, status_message
from trainer_entry import wire

LINE_BYTES = 100
Line = wire.AnyTrainerMessage | None
"""A line in a spool; None is one that is no message."""

attempts = st.integers(0, 3)
job_numbers = st.integers(0, 5)


class Histories(RuleBasedStateMachine):
    """A log that clients, supervisor and trainers write to as they like, and servers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "events.db"
        self.spools: dict[tuple[str, int], list[Line]] = {}
        self.alive: set[tuple[str, int]] = set()  # attempts whose processes are there
        self.stack = AsyncExitStack()
        self.running: RunningLog

    @initialize(slots=st.integers(1, 3), gpus=st.integers(0, 3))
    def open(self, slots: int, gpus: int) -> None:
        self.machine = Machine(slots=slots, gpus=tuple(map(str, range(gpus))))
        self.running = self.loop.run(self.stack.enter_async_context(running_log(self.path, machine=self.machine)))

    def teardown(self) -> None:
        try:
            self.replay_is_what_was_live()
            self.the_log_keeps_its_promises()
            self.who_comes_back_hears_what_was_live()
        finally:
            self.loop.run(self.stack.aclose())
            self.loop.close()
            self.folder.cleanup()

    # -- what comes in --

    def submit(self, *messages: Command | Report, api: bool = True) -> list[Outcome | BaseException]:
        async def run() -> list[Outcome | BaseException]:
            submissions = (self.running.submit(message, actor="api" if api else "supervisor") for message in messages)
            return await asyncio.gather(*submissions, return_exceptions=True)

        outcomes = self.loop.run(run())
        for outcome in outcomes:
            assert isinstance(outcome, Outcome | Conflict | NotFound), outcome
        return outcomes

    def report(self, report: Report) -> None:
        """Reports are never refused, and told again they tell nothing."""
        outcomes = self.submit(report, report, api=False)
        assert all(isinstance(outcome, Outcome) for outcome in outcomes)
        assert isinstance(outcomes[1], Outcome)
        assert outcomes[1].events == ()
        position = self.running.state.position
        self.submit(report, api=False)
        assert self.running.state.position == position

    def job_id(self, number: int) -> str:
        known = list(self.running.state.jobs)
        return known[-1 - number] if number < len(known) else "train_999999"

    @rule(
        queues=st.lists(st.booleans(), min_size=1, max_size=3),
        value=st.none() | st.sampled_from("ab"),
        processes=st.integers(1, 2),
        restarts=st.integers(0, 2),
    )
    def jobs_are_asked_for(self, queues: list[bool], value: str | None, processes: int, restarts: int) -> None:
        used = None if value is None else key(value, "start")
        before = self.running.state.running
        overtakes = bool(self.running.state.waiting)
        outcomes = self.submit(
            *(start("", queue=queue, key=used, num_processes=processes, max_restarts=restarts) for queue in queues)
        )
        assert not (overtakes and self.running.state.running != before)
        if used is not None:
            assert sum(isinstance(outcome, Outcome) and not outcome.repeated for outcome in outcomes) <= 1

    @rule(number=job_numbers | st.none(), value=st.none() | st.sampled_from("abc"))
    def a_job_is_to_stop(self, number: int | None, value: str | None) -> None:
        used = None if value is None else key(value, "stop")
        self.submit(job.StopTraining(job_id="" if number is None else self.job_id(number), key=used))

    @rule(number=job_numbers, attempt=attempts)
    def an_attempt_is_launched_anew(self, number: int, attempt: int) -> None:
        self.submit(job.Relaunch(job_id=self.job_id(number), attempt=attempt), api=False)

    @rule(number=job_numbers)
    def a_checkpoint_is_asked_for(self, number: int) -> None:
        self.submit(job.SaveCheckpoint(job_id=self.job_id(number)))

    @rule(number=job_numbers)
    def a_job_is_to_go_on(self, number: int) -> None:
        self.submit(job.ResumeTraining(job_id=self.job_id(number), resume_from="/data/checkpoint-1"))

    @rule(number=job_numbers)
    def a_job_is_taken_out_of_the_queue(self, number: int) -> None:
        self.submit(job.CancelTraining(job_id=self.job_id(number)))

    @rule()
    def the_next_are_launched(self) -> None:
        waiting, free = self.running.state.waiting, not self.running.state.running
        self.submit(job.LaunchNext(), api=False)
        launched = len(waiting) - len(self.running.state.waiting)
        assert self.running.state.waiting == waiting[launched:]
        assert set(waiting[:launched]) <= set(self.running.state.running)
        assert launched or not (waiting and free)

    @rule(name=st.sampled_from(["a.jsonl", "b.jsonl"]), sha256=st.sampled_from(["0", "1"]))
    def a_dataset_is_registered(self, name: str, sha256: str) -> None:
        self.submit(register_dataset(sha256 * 64, filename=name))

    @rule(name=st.sampled_from(["a.jsonl", "b.jsonl"]), removed=st.booleans(), kept=st.booleans())
    def a_dataset_is_deleted(self, name: str, *, removed: bool, kept: bool) -> None:
        (outcome,) = self.submit(dataset.DeleteDataset(filename=name))
        if kept:
            self.report(dataset.ReportDatasetFilesKept(filename=name, reason="not permitted"))
        if removed and isinstance(outcome, Outcome):
            (event,) = outcome.events
            assert isinstance(event, dataset.DatasetDeleted)
            self.report(dataset.ReportDatasetFilesRemoved(filename=name, files=event.files))

    @rule(sha256=st.sampled_from(["0", "1"]), made=st.booleans())
    def a_job_on_a_dataset_is_asked_for(self, sha256: str, *, made: bool) -> None:
        file = wire.DatasetFile(
            filename="a.jsonl",
            path=f"/data/datasets/{sha256 * 64}.jsonl",
            sha256="2" * 64 if made else sha256 * 64,
            format="input_output",
            num_examples=150,
            records_sha256=sha256 * 64 if made else None,
            revision=None if made else 1,
        )
        there = bool(self.running.state.references.get(f"{sha256 * 64}.jsonl"))
        command = start("", queue=True)
        (outcome,) = self.submit(
            msgspec.structs.replace(command, spec=msgspec.structs.replace(command.spec, dataset=file))
        )
        assert isinstance(outcome, Outcome) == (there or made)

    @rule(model_id=st.integers(1, 3), removed=st.booleans())
    def a_model_is_deleted(self, model_id: int, *, removed: bool) -> None:
        self.submit(model.DeleteModel(model_id=model_id))
        if removed:
            self.report(model.ReportFilesRemoved(model_id=model_id))

    @rule(number=job_numbers, attempt=attempts)
    def a_stale_report_comes(self, number: int, attempt: int) -> None:
        job_id = self.job_id(number)
        known = self.running.state.jobs.get(job_id)
        if known is None or known.attempt != attempt:
            before = self.running.standing()
            for report in (spawned(job_id, attempt=attempt), gone(job_id, attempt=attempt)):
                self.report(report)
            assert self.running.standing() == before

    # -- what an attempt does --

    def current(self, number: int) -> tuple[str, job.Job]:
        running = self.running.state.running
        job_id = running[number % len(running)]
        return job_id, self.running.state.jobs[job_id]

    @precondition(lambda self: self.running.state.running)
    @rule(number=job_numbers)
    def the_attempt_is_spawned(self, number: int) -> None:
        job_id, known = self.current(number)
        self.alive.add((job_id, known.attempt))
        self.report(spawned(job_id, attempt=known.attempt))

    @precondition(lambda self: self.running.state.running)
    @rule(number=job_numbers)
    def the_attempt_is_silent(self, number: int) -> None:
        job_id, known = self.current(number)
        self.report(job.ReportSilence(job_id=job_id, attempt=known.attempt))

    @precondition(lambda self: self.running.state.running)
    @rule(number=job_numbers, data=st.data(), kinds=st.lists(st.sampled_from("sssscbe"), min_size=1, max_size=6))
    def the_trainer_writes_and_is_read(self, number: int, data: st.DataObject, kinds: list[str]) -> None:
        job_id, known = self.current(number)
        spool = self.spools.setdefault((job_id, known.attempt), [])
        for kind in kinds:
            spool.append(self.line(kind, spool, known.attempt))
        end = data.draw(st.integers(0, len(spool)), label="read until")
        begin = data.draw(st.integers(0, end), label="read from")
        # A reader begins at or before what the log has, as after a restart: a gap is never read over.
        self.report(self.read(job_id, known, min(begin, known.offset // LINE_BYTES), end))

    @staticmethod
    def line(kind: str, spool: list[Line], attempt: int) -> Line:
        seq = 1 + sum(line is not None for line in spool)
        if kind == "b":
            return None
        if seq == 1:
            return started(1, attempt=attempt)
        if kind == "e":
            return wire.Evaluated(attempt=attempt, seq=seq, step=seq, epoch=0.5, metrics={"eval_loss": 1 / seq})
        return checkpoint(seq, attempt=attempt) if kind == "c" else step(seq, attempt=attempt, loss=1 / seq)

    def read(self, job_id: str, known: job.Job, begin: int, end: int) -> job.ReportLines:
        spool = self.spools[job_id, known.attempt]
        return lines(
            end * LINE_BYTES,
            *(line for line in spool[begin:end] if line is not None),
            quarantined=tuple(
                bad_line(number * LINE_BYTES, LINE_BYTES - 1) for number in range(begin, end) if spool[number] is None
            ),
            job_id=job_id,
            attempt=known.attempt,
        )

    @precondition(lambda self: self.running.state.running)
    @rule(number=job_numbers, word=st.sampled_from([finished, stopped, failed, None]), told=st.booleans())
    def the_attempt_ends(self, number: int, word: Callable[..., job.LastWord] | None, *, told: bool) -> None:
        job_id, known = self.current(number)
        spool = self.spools.setdefault((job_id, known.attempt), [])
        if word is not None and known.last_word is None:
            spool.append(word(1 + sum(line is not None for line in spool), attempt=known.attempt))
            self.report(self.read(job_id, known, 0, len(spool)))
        if told:
            self.alive.discard((job_id, known.attempt))
            self.report(gone(job_id, attempt=known.attempt, checkpoint="/data/checkpoint-1"))
            again = self.running.state.jobs[job_id]
            assert (job_id in self.running.state.running) == (again.attempt == known.attempt + 1)
            assert again.restarts <= again.spec.max_restarts

    # -- servers come and go --

    @rule(from_snapshot=st.booleans(), save=st.booleans())
    def the_server_starts_again(self, *, from_snapshot: bool, save: bool) -> None:
        live = self.running.standing()
        if save and self.running.state.position:
            self.loop.run(self.running.save())
        self.loop.run(self.stack.aclose())
        opened = running_log(self.path, from_snapshot=from_snapshot, machine=self.machine)
        self.running = self.loop.run(self.stack.enter_async_context(opened))
        assert self.running.standing() == live

    # -- what always holds --

    @invariant()
    def no_more_jobs_run_than_there_is_room_for(self) -> None:
        state = self.running.state
        active = {
            job_id for job_id, known in state.jobs.items() if known.status in {"starting", "training", "stopping"}
        }
        assert active == set(state.running)
        assert len(state.running) == len(active) <= self.machine.slots
        leased = [gpu for job_id in state.running for gpu in state.jobs[job_id].gpus]
        assert len(leased) == len(set(leased))
        assert all(bool(state.jobs[job_id].gpus) == bool(self.machine.gpus) for job_id in state.running)
        assert set(state.waiting) == {job_id for job_id, known in state.jobs.items() if known.status == "queued"}

    @invariant()
    def no_other_attempt_has_the_machine_while_one_is_alive(self) -> None:
        for job_id, attempt in self.alive:
            assert job_id in self.running.state.running
            assert self.running.state.jobs[job_id].attempt == attempt

    @invariant()
    def whatever_is_trained_on_is_there(self) -> None:
        state, read_models = self.running.state, self.running.read_models
        files = [file for known in state.datasets.values() for file in known.files]
        trained_on = [known.spec.dataset for known in state.jobs.values()]
        made = [file for file in trained_on if file.revision is None and file.records_sha256 is not None]
        files += [f"{file.records_sha256}.jsonl" for file in made]
        assert Counter(files) == +Counter(state.references)
        assert not read_models.deleted.keys() & set(files)
        for job_id in (*state.running, *state.waiting):
            assert dataset.file_of(state.jobs[job_id].spec.dataset) in {None, *files}
        for job_id, shown in read_models.jobs.items():
            file = dataset.file_of(state.jobs[job_id].spec.dataset)
            is_gone = read_models.job_detail(shown).dataset.deleted_at is not None
            assert is_gone == (file not in {None, *files})
        assert set(read_models.datasets) == {name for name, known in state.datasets.items() if known.revisions}

    @invariant()
    def the_read_models_say_what_is_decided_against(self) -> None:
        state, read_models = self.running.state, self.running.read_models
        assert {name: shown.status for name, shown in read_models.jobs.items()} == {
            name: known.status for name, known in state.jobs.items()
        }
        assert {name: shown.stalled for name, shown in read_models.jobs.items()} == {
            name: known.stalled for name, known in state.jobs.items()
        }
        assert set(read_models.models) == {number for number, known in state.models.items() if not known.deleted}
        if state.running:
            assert read_models.status().job_id == state.running[0]
        for place, job_id in enumerate(state.waiting, start=1):
            assert read_models.job_detail(read_models.jobs[job_id]).queue_position == place
        for shown in read_models.jobs.values():
            assert shown.current_epoch is None or shown.current_epoch <= (shown.total_epochs or 1)

    def replay_is_what_was_live(self) -> None:
        assert standing_of(self.path) == self.running.standing()

    def who_comes_back_hears_what_was_live(self) -> None:
        """From any position on, of any job or of all, the next frame is that which was live, to the byte."""
        live, heard = ReadModels(), dict[int, bytes | None]()
        for record in records_in(self.path):
            live.apply(record)
            heard[record.position] = recorded_status_frame(record, status_message(live, record))
        with closing(LogReader(self.path)) as reader:
            for record in records_in(self.path):
                for stream in (None, record.stream):
                    history = History(frame=recorded_status_frame, stream=stream)
                    part = history.next_part(reader, Part(position=record.position - 1), record.position)
                    assert part.data == (heard[record.position] or b"")
                    assert part.position == record.position
            whole = History(frame=recorded_status_frame).next_part(reader, Part(position=0), live.position)
        assert whole.position == live.position or whole.data
        assert b"".join(frame or b"" for frame in heard.values()).startswith(whole.data)

    def the_log_keeps_its_promises(self) -> None:
        rows = rows_of(self.path)
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert first_break(rows) is None
        versions: Counter[str] = Counter()
        for _, stream, version, *_ in rows:
            versions[stream] += 1
            assert version == versions[stream]
        launched: list[str] = []
        seen: dict[tuple[str, int], list[int]] = {}
        bad: Counter[tuple[str, int, int]] = Counter()
        for record in records_in(self.path):
            match record.message:
                case job.MetricsLogged(job_id=job_id, attempt=attempt, steps=steps):
                    seen.setdefault((job_id, attempt), []).extend(logged.seq for logged in steps)
                case (
                    job.TrainingStarted(job_id=job_id, attempt=attempt, seq=seq)
                    | job.EvaluationLogged(job_id=job_id, attempt=attempt, seq=seq)
                    | job.CheckpointSaved(job_id=job_id, attempt=attempt, seq=seq)
                    | job.TrainerEnded(job_id=job_id, attempt=attempt, seq=seq)
                ):
                    seen.setdefault((job_id, attempt), []).append(seq)
                case job.AttemptLaunching(job_id=job_id, attempt=1):
                    launched.append(job_id)
                case job.LineQuarantined(job_id=job_id, attempt=attempt, line=line):
                    bad[job_id, attempt, line.offset] += 1
                case _:
                    pass
        for told in seen.values():
            assert told == list(range(1, len(told) + 1))
        assert set(bad.values()) <= {1}
        assert launched == sorted(launched)  # the jobs start in the order in which they were asked for


Histories.TestCase.settings = settings(
    max_examples=settings().max_examples // 2,
    stateful_step_count=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestHistories = Histories.TestCase
