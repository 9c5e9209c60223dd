"""Metrics of the channels' circuit breakers and of the retry budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from services.common.plain_metrics import PlainMetrics
from services.routing.budget import RetryBudget
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth


def declare_routing_metrics(
    counters: PlainMetrics,
    catalog: Callable[[], Catalog],
    health: ChannelHealth,
    budget: RetryBudget,
) -> None:
    """Declare them. `catalog` returns the current one."""

    def breakers() -> Iterator[tuple[Sequence[str], float]]:
        for labels, targets in catalog().targets_by_channel.items():
            yield labels, health.best_breaker_state(targets)

    counters.observable_gauges(
        "circuit_breaker_state", "0 closed, 1 half-open, 2 open.", ("channel", "model"), breakers
    )
    counters.observable_gauge(
        "upstream_retry_budget", "Retries that may be made now.", lambda: budget.left
    )
