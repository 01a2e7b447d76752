"""What an attempt is asked while it runs: SIGTERM to end, SIGUSR1 to save a checkpoint and go on.

A stop is honoured at once while nothing is trained, and with a checkpoint at the next step while something is.
A thread hears the signals, not a handler: the main thread may be inside a long call of C code, or hold a lock.
"""

import os
import signal
import threading
from collections.abc import Callable


class Signals:
    """What was asked for and is still to be done. Asking twice changes nothing."""

    def __init__(self, before_training: Callable[[], None]) -> None:
        """`before_training` says the last word when there is nothing to save; the process ends after it."""
        self._before_training = before_training
        self._lock = threading.Lock()
        self._training = False
        self._stop = False
        self._checkpoint = False
        self._numbers, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)

    def listen(self) -> None:
        """Hear the signals from now on. For the main thread."""
        # The handler itself does nothing: the interpreter writes the signal's number to the pipe before it.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, name="signals", daemon=True).start()

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

    def _hear(self) -> None:
        while number := os.read(self._numbers, 1):
            match number[0]:
                case signal.SIGUSR1:
                    self._checkpoint = True
                case signal.SIGTERM:
                    with self._lock:
                        self._stop = True
                        if not self._training:
                            self._before_training()
                            os._exit(0)
                case _:
                    pass
