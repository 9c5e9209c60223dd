"""Amounts of money in answers."""

from __future__ import annotations


def exact_usd(nano_usd: int) -> bytes:
    """Return US dollars as an exact JSON number, without trailing zeros."""
    whole, rest = divmod(nano_usd, 1_000_000_000)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".").encode() if nano_usd else b"0"
