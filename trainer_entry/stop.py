"""SIGTERM: at once while nothing is trained, with a checkpoint at the next step while something is.

A thread hears it, not a signal handler: the main thread may be inside a long call of C code, or hold a lock.
"""

import os
import signal
import threading
from collections.abc import Callable


class StopRequest:
    """Whether the attempt was asked to end. Asking twice changes nothing."""

    def __init__(self, before_training: Callable[[], None]) -> None:
        """`before_training` says the last word when there is nothing to save; the process ends after it."""
        self._before_training = before_training
        self._lock = threading.Lock()
        self._training = False
        self._requested = False
        self._signals, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)

    def listen(self) -> None:
        """Hear SIGTERM from now on. For the main thread."""
        # The handler itself does nothing: the interpreter writes the signal's number to the pipe before it.
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, name="stop-request", daemon=True).start()

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._requested

    def training_begins(self) -> None:
        """From now on a stop is the training loop's to honour. Does not return if one came before."""
        with self._lock:
            self._training = True

    def _hear(self) -> None:
        while number := os.read(self._signals, 1):
            if number[0] != signal.SIGTERM:
                continue
            with self._lock:
                self._requested = True
                if not self._training:
                    self._before_training()
                    os._exit(0)
