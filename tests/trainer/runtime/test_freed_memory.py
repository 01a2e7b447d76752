"""Memory that was freed goes back to the system."""

import os
from pathlib import Path

from trainer_entry.runtime.freed_memory import give_memory_back

MEGA = 1_000_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_was_freed_under_a_piece_in_use_goes_back_to_the_system() -> None:
    pieces = [bytearray(b"x" * 60_000) for _ in range(2_000)]
    last = bytearray(b"x" * 60_000)
    held = resident()
    pieces.clear()
    give_memory_back()
    assert held - resident() > 90 * MEGA
    assert last
