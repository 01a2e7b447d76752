"""What an attempt is asked while it runs: SIGTERM to end, SIGUSR1 to save a checkpoint and go on.

A stop is honoured at once while nothing is trained, and with a checkpoint at the next step while something is.
A thread waits for the signals, not a handler: the main thread may be inside a long call of C code, or hold a lock.
It learns who sent them, too: a launcher of several processes ends the others with SIGTERM when one has failed.
"""

import os
import signal
import threading
from collections.abc import Callable

_AWAITED = frozenset({signal.SIGTERM, signal.SIGUSR1})
_ERROR = 1


class Signals:
    """What was asked for and is still to be done. Asking twice changes nothing."""

    def __init__(self, before_training: Callable[[], None], left_alone: Callable[[], bool]) -> None:
        """`before_training` says the last word when there is nothing to save; the process ends after it.

        `left_alone` is asked when the launcher sends SIGTERM: whether it does so because another process failed, and
        why that was has been said.
        """
        self._before_training = before_training
        self._left_alone = left_alone
        self._launcher = os.getppid()
        self._lock = threading.Lock()
        self._training = False
        self._stop = False
        self._checkpoint = False

    def listen(self) -> None:
        """Wait for the signals from now on. For the main thread, while there is no other."""
        hold_back()  # every thread to come inherits it; ours waits for them
        os.register_at_fork(after_in_child=_let_through)
        threading.Thread(target=self._wait_for_signals, name="signals", daemon=True).start()

    @property
    def stop_asked(self) -> bool:
        """Whether the attempt is to end."""
        return self._stop

    @property
    def checkpoint_asked(self) -> bool:
        """Whether a checkpoint is to be saved at the next step."""
        return self._checkpoint

    def checkpoint_saved(self) -> None:
        """What was asked for is on the disk."""
        self._checkpoint = False

    def training_begins(self) -> None:
        """From now on a stop is the training loop's to honour. Does not return if one came before."""
        with self._lock:
            self._training = True

    def _wait_for_signals(self) -> None:
        while True:
            received = signal.sigwaitinfo(_AWAITED)
            match received.si_signo:
                case signal.SIGUSR1:
                    self._checkpoint = True
                case signal.SIGTERM:
                    if received.si_pid == self._launcher and self._left_alone():
                        os._exit(_ERROR)
                    with self._lock:
                        self._stop = True
                        if not self._training:
                            self._before_training()
                            os._exit(0)
                case _:
                    pass


def hold_back() -> None:
    """Let the signals wait until somebody listens. For the main thread, while there is no other."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)


def _let_through() -> None:
    """A process that is forked from this one has no thread that waits for them: signals are to end it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
