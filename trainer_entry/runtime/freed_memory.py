"""Memory that a phase freed, for the phase after it and for other processes."""

import ctypes
import gc


def give_memory_back() -> None:
    """Free what only holds itself, and give what was freed back to the system.

    glibc keeps it where pieces after it are in use, and what is loaded next takes more instead of all of it.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc has it, others give back by themselves or cannot
        libc.malloc_trim(0)
