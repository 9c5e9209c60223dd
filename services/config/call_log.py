"""The table `[call_log]`."""

from __future__ import annotations

from typing import Annotated

import msgspec


class CallLogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Call log."""

    enabled: bool = True
    """Whether each call of an accepted key gets a row, with names, numbers and times, and never a
    part of a prompt or an answer. Read at the start."""
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 30
    """Days for which rows and their sums are kept. SQLite keeps them until the end of their month
    is as old. Read at the start."""
