"""Products by either library are the same numbers."""

from __future__ import annotations

import pytest
import torch

from trainer_entry.strategies import products
from trainer_entry.strategies.products import times_transposed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(5, 7, 3), (1, 64, 96), (0, 8, 4), (33, 48, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_product_is_what_torch_makes_it_however_its_matrix_lies(
    chosen: bool,  # noqa: FBT001 - a parameter of the test
    rows: int,
    inputs: int,
    outputs: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "USES_ONEDNN", chosen and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    torch.manual_seed(1)
    x, matrix = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    for one in (matrix, matrix.t().contiguous().t()):
        torch.testing.assert_close(times_transposed(x, one), x @ matrix.t(), rtol=1e-5, atol=1e-4)
    assert times_transposed(x, matrix).is_contiguous()
