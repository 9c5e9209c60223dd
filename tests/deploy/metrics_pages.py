"""The metrics of a running gateway, with edge and service in one process.

    python -m tests.deploy.metrics_pages

prints the rows of deploy/METRICS.md.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import Metric

from gateway.config import EdgeConfig
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.server import serving_rest
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.config import load
from services.providers.registry import DIALECTS
from services.serving.server import open_service
from tests.deploy.manifests import ROOT

TABLE = ROOT / "deploy" / "METRICS.md"


def running_metrics() -> Mapping[str, Metric]:
    """Families on the page of a gateway that has just started, by name."""
    return asyncio.run(_running_metrics())


async def _running_metrics() -> Mapping[str, Metric]:
    config = load(None, {"ANTHROPIC_API_KEY": "k"}, dialects=DIALECTS)
    with tempfile.TemporaryDirectory() as state:
        async with open_service(config, Path(state), {}) as service:
            edge = EdgeMetrics()
            service.registry.register(edge)
            async with (
                service.channel() as channel,
                serving_rest(
                    channel,
                    "127.0.0.1:0",
                    EdgeConfig(drain_timeout_s=0.1),
                    metrics=edge,
                    memory=MemoryMonitor(),
                ),
            ):
                return {family.name: family for family in service.registry.collect()}


def labels_of(family: Metric) -> tuple[str, ...]:
    """Names of the labels, even while there is no sample."""
    declared: tuple[str, ...] = getattr(family, "_labelnames", ())
    shown = [name for sample in family.samples for name in sample.labels if name != "le"]
    return tuple(dict.fromkeys((*declared, *shown)))


def table(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Rows of deploy/METRICS.md, by name."""
    for name, family in sorted(metrics.items()):
        if name.startswith("pomogator_"):
            series = f"{name}_total" if family.type == "counter" else name
            labels = ", ".join(f"`{label}`" for label in labels_of(family)) or "–"
            yield f"| `{series}` | {family.type} | {labels} | {family.documentation} |"


if __name__ == "__main__":
    print(*table(running_metrics()), sep="\n")  # noqa: T201  It is for people.
