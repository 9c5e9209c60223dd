"""Values in JSON text are counted without making objects of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.json_values import has_more_values

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), JSON))
def test_values_are_counted_exactly(value: dict[str, object]) -> None:
    """The bound counts values and names outside strings, also where slices cut the text."""
    text = json.dumps(value).encode()
    separators = _separators_outside_strings(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.common.json_values.SLICE_BYTES", 3)
        assert has_more_values(text, separators) or len(text) <= separators
        assert not has_more_values(text, separators + 1)


def _separators_outside_strings(value: object) -> int:
    """The opening brackets, commas and colons of `value` as JSON."""
    if isinstance(value, dict):
        inner = sum(_separators_outside_strings(member) for member in value.values())
        return 1 + len(value) + max(0, len(value) - 1) + inner
    if isinstance(value, list):
        inner = sum(_separators_outside_strings(item) for item in value)
        return 1 + max(0, len(value) - 1) + inner
    return 0
