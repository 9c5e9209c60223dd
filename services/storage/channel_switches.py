"""Channels that operators have disabled, as statements."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.storage.base import Statement, Transaction, notify

NOTICE = "channels"
"""Notice that a channel was disabled or enabled."""

DISABLE = """
    INSERT INTO channel_switches (channel, reason, disabled_ms, until_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT (channel) DO UPDATE SET reason = excluded.reason,
        disabled_ms = excluded.disabled_ms, until_ms = excluded.until_ms
"""
ENABLE = "DELETE FROM channel_switches WHERE channel = ?"
SELECT = "SELECT channel, reason, disabled_ms, until_ms FROM channel_switches"


class Disablement(msgspec.Struct, frozen=True, kw_only=True):
    """Channel that gets no calls."""

    channel: str
    """Its name."""
    reason: str
    """Reason, in the operator's words."""
    disabled_ms: int
    """Time at which it was disabled."""
    until_ms: int | None = None
    """Time at which it gets calls again. None: when an operator enables it."""


def disable_channel(row: Disablement) -> Transaction[None]:
    """Disable a channel in all processes, or replace reason and time of a disabled one."""
    yield DISABLE, (row.channel, row.reason, row.disabled_ms, row.until_ms)
    yield _notice()


def enable_channel(channel: str) -> Transaction[None]:
    """Enable a channel in all processes."""
    yield ENABLE, (channel,)
    yield _notice()


def disabled_channels() -> Transaction[Mapping[str, Disablement]]:
    """Return the disabled channels by name, also those whose time is over."""
    rows = yield SELECT, ()
    names = Disablement.__struct_fields__
    found = [msgspec.convert(dict(zip(names, row, strict=True)), Disablement) for row in rows]
    return {row.channel: row for row in found}


def _notice() -> Statement:
    return notify(NOTICE)
