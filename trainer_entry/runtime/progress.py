"""The progress of work on a trained model, as messages on the wire."""

import platform
import time
from importlib.metadata import version

from trainer_entry.runtime.heartbeat import touch_while_busy
from trainer_entry.runtime.signals import Signals
from trainer_entry.runtime.stdout import Wire
from trainer_entry.wire import Environment, Phase, PhaseStarted, StepLogged, Unit, WorkPlanned

_REPORT_SECONDS = 1.0


class Progress:
    """Counts what is done and reports it, once a second at most, and at the end."""

    def __init__(self, wire: Wire, attempt: int, signals: Signals) -> None:
        self.step = 0
        self._wire = wire
        self._attempt = attempt
        self._signals = signals
        self._total = 0
        self._phase: Phase = "preparing_data"
        self._began = self._reported = time.monotonic()

    def enter(self, phase: Phase) -> None:
        """Another part of the work begins."""
        self._phase = phase
        self._wire.send(lambda seq: PhaseStarted(attempt=self._attempt, seq=seq, phase=phase))

    def begin(self, total: int, unit: Unit, environment: Environment) -> None:
        """It is known how much there is to do."""
        self._total = total
        self._wire.send(
            lambda seq: WorkPlanned(
                attempt=self._attempt, seq=seq, total_steps=total, unit=unit, environment=environment
            )
        )
        self._began = self._reported = time.monotonic()
        touch_while_busy(self._wire, lambda: True)  # the upload of a large file is one step

    def stay_alive(self) -> None:
        """Show that the process lives from now on, while it is not known yet how much there is to do."""
        touch_while_busy(self._wire, lambda: True)

    def advance(self, count: int) -> None:
        """So much more is done."""
        self.step += count
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS and self.step < self._total:
            return
        self._reported = now
        elapsed, done, left = now - self._began, self.step, self._total - self.step
        self._wire.send(
            lambda seq: StepLogged(
                attempt=self._attempt,
                seq=seq,
                step=done,
                total_steps=self._total,
                epoch=0.0,
                elapsed_seconds=elapsed,
                eta_seconds=elapsed / done * left if done else None,
                phase=self._phase,
            )
        )

    def commit(self) -> None:
        """What was made takes its place now: a stop comes too late. Does not return if one came before."""
        self._signals.training_begins()


def describe(*libraries: str) -> Environment:
    """Where work runs that computes nothing."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        device="cpu",
        versions={name: version(name) for name in libraries},
    )
