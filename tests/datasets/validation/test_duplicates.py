"""Duplicates are found the same, however few records are compared at once."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from support.checked import checked

from modelforge.datasets.validation import duplicates


@given(st.lists(st.sampled_from(["a", "a b", "a  b", " a", "c", "d"]), min_size=1, max_size=40), st.integers(1, 9))
def test_few_records_at_once_are_compared_as_all(outputs: list[str], part: int) -> None:
    data = "".join(f'{{"input": "a", "output": "{output}"}}\n' for output in outputs).encode()
    expected, _ = checked(data)
    with patch.object(duplicates, "_PART", part):
        found, _ = checked(data)
    assert found == expected
