"""A process that strace may follow though it did not start it."""

import ctypes

_PR_SET_PTRACER = 0x59616D61
_PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)


def let_be_followed() -> None:
    """Anybody of the same user may attach; some kernels (Yama) let only a parent, and strace is none of ours."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
