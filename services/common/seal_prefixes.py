"""Prefixes of seals: sealed reasoning of other providers, in fields of the callers' APIs.

A provider cannot read such a seal: a request that has one is translated for it.
"""

from __future__ import annotations

DETAILS_PREFIX = "pomogator.details."
STATE_PREFIX = "pomogator.state."
SEAL = b"pomogator."
"""Beginning of all seals."""
