"""Amounts of money, which are whole nano-dollars in all our code and in the contract."""

from __future__ import annotations

NANO_PER_USD = 1_000_000_000


def exact_usd(nano_usd: int, *, decimals_min: int = 0) -> str:
    """Return the amount in US dollars, exactly, with no more decimals than it needs.

    With `decimals_min` it has at least that many.
    """
    if nano_usd < 0:
        return "-" + exact_usd(-nano_usd, decimals_min=decimals_min)
    whole, rest = divmod(nano_usd, NANO_PER_USD)
    decimals = f"{rest:09d}".rstrip("0")
    if len(decimals) < decimals_min:
        decimals = decimals.ljust(decimals_min, "0")
    return f"{whole}.{decimals}" if decimals else str(whole)
