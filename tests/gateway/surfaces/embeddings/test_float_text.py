"""Float32 vectors as decimal numbers."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.surfaces.embeddings.float_text import numbers_json

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOAT32, max_size=20))
def test_the_same_float32_is_read(vector: list[float]) -> None:
    """Bit by bit, also zeros with a sign and subnormal numbers."""
    packed = struct.pack(f"<{len(vector)}f", *vector)

    read = json.loads(numbers_json(packed))

    assert struct.pack(f"<{len(vector)}f", *read) == packed


@example("0.000986")  # As a float32 it is 0.0009860001 with seven digits.
@given(st.decimals(min_value=-2, max_value=2, places=6).map(str))
def test_few_digits_stay_few(number: str) -> None:
    """A number with up to seven digits is written with seven at most, and is the same float32."""
    packed = struct.pack("<f", float(number))

    written = numbers_json(packed)

    assert struct.pack("<f", *json.loads(written)) == packed
    digits = written.strip(b"[-]").partition(b"e")[0].replace(b".", b"").lstrip(b"0")
    assert len(digits) <= 7


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (1, "1"), (-0.0, "-0.0"), (0.0069292835, "0.0069292835"), (1e-10, "1e-10")],
)
def test_float32_is_not_written_as_a_double(number: float, text: str) -> None:
    """A float32 of 0.1 is not 0.10000000149011612."""
    assert numbers_json(struct.pack("<f", number)) == f"[{text}]".encode()
