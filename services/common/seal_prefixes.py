"""Prefixes of seals: sealed reasoning of other providers, in APIs whose own form has room for it.

A provider cannot read such a seal: a request that has one is translated for it.
"""

from __future__ import annotations

DETAILS_PREFIX = "pomogator.details."
STATE_PREFIX = "pomogator.state."

_SEALS = tuple(f'"{prefix}'.encode() for prefix in (DETAILS_PREFIX, STATE_PREFIX))


def has_seal(body: bytes) -> bool:
    """Return whether a JSON text may have a string that is a seal."""
    return any(seal in body for seal in _SEALS)
