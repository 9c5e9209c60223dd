"""Float32 vectors as decimal numbers."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.surfaces.embeddings.float_text import numbers_json

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOAT32, max_size=20))
def test_the_same_float32_is_read(vector: list[float]) -> None:
    """Bit by bit, also zeros with a sign and subnormal numbers."""
    packed = struct.pack(f"<{len(vector)}f", *vector)

    read = json.loads(numbers_json(packed))

    assert struct.pack(f"<{len(vector)}f", *read) == packed


@given(st.decimals(min_value=-2, max_value=2, places=6))
def test_few_digits_stay_few(number: object) -> None:
    """A vector of numbers with up to seven digits is written with the same digits."""
    text = f"{float(str(number)):.7g}"

    assert numbers_json(struct.pack("<f", float(text))) == f"[{text}]".encode().replace(
        b"[-0]", b"[-0.0]"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (1, "1"), (-0.0, "-0.0"), (0.0069292835, "0.0069292835"), (1e-10, "1e-10")],
)
def test_float32_is_not_written_as_a_double(number: float, text: str) -> None:
    """A float32 of 0.1 is not 0.10000000149011612."""
    assert numbers_json(struct.pack("<f", number)) == f"[{text}]".encode()
