"""Metrics of the ledger's holds."""

from __future__ import annotations

from services.common.plain_metrics import PlainMetrics
from services.metering.ledger import Ledger


def declare_ledger_metrics(metrics: PlainMetrics, ledger: Ledger) -> None:
    """Declare the metrics of a ledger."""
    metrics.observable_gauge("holds_open", "Open holds of this process.", lambda: ledger.open_holds)
    metrics.observable_gauge(
        "holds_broken",
        "Holds that cannot be ended as they are stored.",
        lambda: ledger.broken_holds,
    )
    metrics.observable_counter(
        "holds_recovered_total", "Holds recovered for dead processes.", lambda: ledger.recovered
    )
    metrics.observable_gauge(
        "outbox_depth", "Ends of holds that wait for the database.", lambda: ledger.outbox_depth
    )
