"""Exact sums of integers, whatever their size.

SQLite fails where a sum of integers overflows, and PostgreSQL where it is cast to an integer again.
So each sum is computed in two parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

UNIT = 2**30
"""Factor of the high part of a sum."""


def sum_columns(*amounts: str) -> str:
    """Return the columns of a statement with the two parts of the sum of each amount."""
    return ", ".join(
        f"CAST(COALESCE(sum({part}), 0) AS BIGINT)"
        for amount in amounts
        for part in (f"({amount}) / {UNIT}", f"({amount}) % {UNIT}")
    )


def read_sums(columns: Sequence[object]) -> list[int]:
    """Return the sums in the columns of a row."""
    parts = msgspec.convert(list(columns), list[int])
    return [high * UNIT + low for high, low in zip(parts[::2], parts[1::2], strict=True)]
