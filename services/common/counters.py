"""Counters and histograms as plain numbers, which take Prometheus' form when somebody looks.

    calls = tallies.counter("calls_total", "Calls that are over.", "method")
    calls[("create",)].inc()

The library's own take a lock and up to six functions for each step, and a call moves eight of them.
All counting and looking is done on the event loop's thread. The edge counts in the same way
(`gateway.telemetry.edge_metrics`): neither side imports the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

C = TypeVar("C")


class Count:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """So much more."""
        self.value += amount


class Histogram:
    """How often values were how large."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more, of this size."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Shows it."""
        bounds = (*map(str, self._bounds), "+Inf")
        family.add_metric(
            labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum
        )


class Children(dict[tuple[str, ...], C], Generic[C]):
    """What is counted apart, by its labels. Made when it is first asked for, with zero."""

    def __init__(self, make: Callable[[], C]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, labels: tuple[str, ...]) -> C:
        child = self[labels] = self._make()
        return child


class Counters(Collector):
    """All of them, for the registry that shows them."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._prefix = prefix
        self._families: list[Callable[[], Metric]] = []
        registry.register(self)

    def counter(self, name: str, about: str, *labels: str) -> Children[Count]:
        """A counter for each combination of labels."""
        counts = Children(Count)

        def family() -> Metric:
            found = CounterMetricFamily(f"{self._prefix}_{name}", about, labels=labels)
            for values, count in counts.items():
                found.add_metric(values, count.value)
            return found

        self._families.append(family)
        return counts

    def histogram(
        self, name: str, about: str, bounds: Sequence[float], *labels: str
    ) -> Children[Histogram]:
        """A histogram for each combination of labels."""
        histograms = Children(lambda: Histogram(bounds))

        def family() -> Metric:
            found = HistogramMetricFamily(f"{self._prefix}_{name}", about, labels=labels)
            for values, histogram in histograms.items():
                histogram.add_to(found, values)
            return found

        self._families.append(family)
        return histograms

    def collect(self) -> Iterator[Metric]:
        """As they stand at this moment."""
        for family in self._families:
            yield family()
