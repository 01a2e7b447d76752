"""A record's data as it lies in the file: packed where that is worth it, and the very same bytes when it is read.

Many steps in one record are a tenth when they are packed. A single one would take six times as long to read, for a
third of its size: it stays as it is until it is archived.
"""

import hashlib

from modelforge.event_log.zstd import zstd

_WORTH = 2200
"""From so many bytes on data is packed: four steps, which are read about as fast as four records."""
_LARGEST = 64 << 20
"""Bytes that data has at most where it is packed: a log of somebody else's must not take all memory."""
_LEVEL = 1
_STEP = (
    b'{"type":"step","step":1,"total_steps":1000,"epoch":0.001,"elapsed_seconds":1.0,"eta_seconds":999.0,"loss":2.5,'
    b'"learning_rate":0.0001,"grad_norm":1.0,"tokens_per_second":100.0,"phase":"training","phase_step":1,'
    b'"phase_total_steps":1000,"reward":null,"kl":null,"completion_length":null,"reward_accuracy":null,'
    b'"reward_margin":null,"memory_mb":1000.0,"gpu_memory_mb":null,"nonfinite":[],"phase_eta_seconds":999.0,'
    b'"rewards":{},"attempt":1,"seq":1}'
)
_TYPICAL = (
    b'"job_id":"train_000001"}{"type":"MetricsLogged","attempt":1,"seq":1,"offset":1000,"steps":['
    + _STEP
    + b","
    + _STEP
)
"""What a packer knows from the start. It is part of the format: without these bytes nothing packed is read again."""
TYPICAL_SHA256 = hashlib.sha256(_TYPICAL).hexdigest()
_dictionary = zstd.ZstdDict(_TYPICAL, is_raw=True)
_packer = zstd.ZstdCompressor(level=_LEVEL, zstd_dict=_dictionary.as_digested_dict)


def packed(data: bytes | memoryview) -> bytes | None:
    """The data in fewer bytes, for one thread at a time; None where it is as well left as it is."""
    if not _WORTH <= len(data) <= _LARGEST:
        return None
    smaller = _packer.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
    return smaller if len(smaller) < len(data) * 3 // 4 else None


def unpacked(data: bytes) -> bytes:
    """What was packed.

    Raises:
        ValueError: it is not what `packed` gave.
    """
    unpacker = zstd.ZstdDecompressor(zstd_dict=_dictionary.as_digested_dict)
    try:
        content = unpacker.decompress(data, max_length=_LARGEST + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if not unpacker.eof or unpacker.unused_data or len(content) > _LARGEST:
        raise ValueError(f"it cannot be unpacked: it is not one whole frame of at most {_LARGEST} bytes")
    return content
