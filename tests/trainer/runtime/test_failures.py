"""A failure is told by a kind that a person can act on."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from trainer_entry.runtime.failures import DatasetChanged, kind_of, message_of


def test_memory_that_the_host_does_not_have_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 58)
    assert kind_of(raised.value) == "OutOfMemory"
    assert kind_of(MemoryError()) == "OutOfMemory"
    assert kind_of(torch.OutOfMemoryError("CUDA out of memory")) == "OutOfMemory"
    assert kind_of(torch.AcceleratorError("CUDA error: out of memory")) == "OutOfMemory"
    assert kind_of(torch.AcceleratorError("CUDA error: unspecified launch failure")) == "AcceleratorError"


def test_a_disk_without_room_is_told_whatever_stands_around_the_error() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        full = OSError(number, os.strerror(number))
        assert kind_of(full) == "DiskFull"
        assert kind_of(caused(RuntimeError("The cache could not be written"), by=full)) == "DiskFull"
        assert kind_of(RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})")) == "DiskFull"
    assert kind_of(OSError(errno.EIO, os.strerror(errno.EIO))) == "OSError"


def caused(error: Exception, *, by: Exception) -> Exception:
    error.__cause__ = by
    return error


def test_any_other_failure_is_told_by_its_type() -> None:
    assert kind_of(DatasetChanged("other bytes")) == "DatasetChanged"
    assert message_of(DatasetChanged("other bytes")) == "other bytes"
    assert message_of(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(message_of(ValueError("x" * 100_000))) == 2000
