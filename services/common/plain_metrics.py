"""Metrics that are plain numbers, and take Prometheus' form when they are read.

    calls = metrics.counter("calls_total", "Calls that have ended.", "method")
    calls[("create",)].value += 1

The client library's own take a lock and up to six function calls for each step, and one call to
the service moves eight of them. Count and read on the event loop's thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeAlias, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

C = TypeVar("C")

ReadValues: TypeAlias = Callable[[], Iterable[tuple[Sequence[str], float]]]
"""Returns the labels of each value, and the value."""


class PlainCounter:
    """One counter: a number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0
        """The number. Add to it."""


class PlainHistogram:
    """One histogram: how many of the observed values fall into each bucket."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count values."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sum += sum(values)

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add its buckets and sum to a family of metrics."""
        bounds = (*map(str, self._bounds), "+Inf")
        family.add_metric(
            labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum
        )


class ByLabels(dict[tuple[str, ...], C], Generic[C]):
    """The counters or histograms of one metric by their labels.

    Each is made, and shown with zero, once it is asked for.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, labels: tuple[str, ...]) -> C:
        child = self[labels] = self._make()
        return child


class PlainMetrics(Collector):
    """Metrics that several components declare. All names begin with `prefix` and `_`."""

    def __init__(self, prefix: str, registry: CollectorRegistry | None = None) -> None:
        """Without a `registry` the caller registers the collector where it is shown."""
        self._prefix = prefix
        self._families: dict[str, Callable[[], Metric]] = {}
        self.before_reading: list[Callable[[], None]] = []
        """Called before the metrics are read, to count what has not been counted yet."""
        if registry is not None:
            registry.register(self)

    def counter(self, name: str, about: str, *labels: str) -> ByLabels[PlainCounter]:
        """Return the counters of a metric, one for each combination of labels."""
        counts = ByLabels(PlainCounter)
        self.observable_counters(
            name, about, labels, lambda: ((each, one.value) for each, one in counts.items())
        )
        return counts

    def observable_counter(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Show a counter that another object keeps: `read` returns its value."""
        full_name = f"{self._prefix}_{name}"
        self._declare(name, lambda: CounterMetricFamily(full_name, about, value=read()))

    def observable_gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Show a value that goes up and down: `read` returns it."""
        full_name = f"{self._prefix}_{name}"
        self._declare(name, lambda: GaugeMetricFamily(full_name, about, value=read()))

    def observable_counters(
        self, name: str, about: str, labels: Sequence[str], read: ReadValues
    ) -> None:
        """Show counters that another object keeps, by their labels: `read` returns both."""
        self._declare(name, self._family(CounterMetricFamily, name, about, labels, read))

    def observable_gauges(
        self, name: str, about: str, labels: Sequence[str], read: ReadValues
    ) -> None:
        """Show values by their labels: `read` returns both."""
        self._declare(name, self._family(GaugeMetricFamily, name, about, labels, read))

    def _family(
        self,
        kind: type[CounterMetricFamily | GaugeMetricFamily],
        name: str,
        about: str,
        labels: Sequence[str],
        read: ReadValues,
    ) -> Callable[[], Metric]:
        def family() -> Metric:
            found = kind(f"{self._prefix}_{name}", about, labels=labels)
            for values, value in read():
                found.add_metric(values, value)
            return found

        return family

    def histogram(
        self, name: str, about: str, bounds: Sequence[float], *labels: str
    ) -> ByLabels[PlainHistogram]:
        """Return the histograms of a metric, one for each combination of labels."""
        histograms = ByLabels(lambda: PlainHistogram(bounds))

        def family() -> Metric:
            found = HistogramMetricFamily(f"{self._prefix}_{name}", about, labels=labels)
            for values, histogram in histograms.items():
                histogram.add_to(found, values)
            return found

        self._declare(name, family)
        return histograms

    def collect(self) -> Iterator[Metric]:
        """Give all metrics as they are now."""
        for count in self.before_reading:
            count()
        for family in self._families.values():
            yield family()

    def _declare(self, name: str, family: Callable[[], Metric]) -> None:
        if name in self._families:
            raise ValueError(f"the metric {self._prefix}_{name} is declared twice")
        self._families[name] = family
