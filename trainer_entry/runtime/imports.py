"""How the libraries of a training are imported in less time."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import a library within it: nothing is looked through for garbage meanwhile, and what came never is again.

    An import of trl makes a million objects that stay, through which the collector goes again and again while they
    come, and at times while a model is trained: a fifth of the processor time of a trainer's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
