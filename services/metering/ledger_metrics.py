"""Metrics of the ledger's holds."""

from __future__ import annotations

from services.common.plain_metrics import PlainMetrics
from services.metering.ledger import Ledger


def declare_ledger_metrics(counters: PlainMetrics, ledger: Ledger) -> None:
    """Declare them."""
    counters.observable_gauge(
        "holds_open", "Calls of this process that hold money.", lambda: ledger.open_holds
    )
    counters.observable_gauge(
        "holds_broken",
        "Holds that cannot be ended as they are in the database.",
        lambda: ledger.broken_holds,
    )
    counters.observable_counter(
        "holds_recovered_total",
        "Holds that were ended for processes that had died.",
        lambda: ledger.recovered,
    )
    counters.observable_gauge(
        "outbox_depth",
        "Settlements that wait to be written to the database.",
        lambda: ledger.outbox_depth,
    )
