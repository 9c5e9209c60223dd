"""Amounts of money, which are whole nano-dollars in all our code and in the contract."""

from __future__ import annotations

NANO_PER_USD = 1_000_000_000


def exact_usd(nano_usd: int, *, decimals_min: int = 0) -> str:
    """Return the amount in US dollars, exactly, with no more decimals than it needs.

    With `decimals_min` it has at least that many.
    """
    whole, rest = divmod(abs(nano_usd), NANO_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(decimals_min, "0")
    sign = "-" if nano_usd < 0 else ""
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
