"""Prefixes of seals: sealed reasoning of other providers, in APIs whose own form has room for it.

A provider cannot read such a seal: a request that has one is translated for it.
"""

from __future__ import annotations

DETAILS_PREFIX = "pomogator.details."
STATE_PREFIX = "pomogator.state."
SEAL = b"pomogator."
"""How all of them begin."""
