"""Products of 32-bit matrices on the CPU, by the library that is the faster one on its processor.

torch multiplies them with Intel's MKL, which has kernels for AVX-512 on Intel's processors alone; oneDNN, which torch
has beside it for 16 bits, asks the processor what it can. Both add the same numbers in another order.
"""

# mypy: allow-untyped-calls

from pathlib import Path
from typing import Any

import torch

_INTEL = "GenuineIntel"


def _chooses_onednn() -> bool:
    """Whether oneDNN is in this build of torch, and its kernels are the better ones here."""
    has = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has and torch.backends.cpu.get_cpu_capability() == "AVX512" and _vendor() != _INTEL


def _vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return _INTEL  # not known: as torch does it
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), _INTEL)


USES_ONEDNN = _chooses_onednn()


def times_transposed(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """`rows @ matrix.T`: (n, k) and (m, k) give (n, m). For what has no gradient, or has it made by hand."""
    if USES_ONEDNN and rows.dtype == matrix.dtype == torch.float32 and rows.device.type == "cpu" and len(rows):
        # What torch.compile makes of a linear layer on the CPU; outside of it torch offers nothing for 32 bits.
        product: Any = torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")  # noqa: SLF001
        return product  # type: ignore[no-any-return]
    return rows @ matrix.t()
