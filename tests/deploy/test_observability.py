"""Dashboards and alerts speak of metrics that there are."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator, Mapping

import grpc
import pytest
import yaml
from prometheus_client import CollectorRegistry

from gateway.config import EdgeConfig
from gateway.server import serving
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.telemetry.metrics import Metrics
from tests.deploy.manifests import ROOT, tool

ALERTS = ROOT / "deploy" / "alerts" / "pomogator.yaml"
DASHBOARDS = sorted((ROOT / "deploy" / "dashboards").glob("*.json"))
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

TARGET_LABELS = {"job", "instance"}
"""Prometheus adds them."""

SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
    "info": (),
}
"""What the series of a family end in."""


def series() -> Mapping[str, set[str]]:
    """Each series that we expose, and its labels."""
    names: dict[str, set[str]] = {}
    metrics = all_metrics()
    for name, collector in metrics._names_to_collectors.items():
        names[name] = set(getattr(collector, "_labelnames", ())) | TARGET_LABELS
    for family in metrics.collect():
        for suffix in SUFFIXES[family.type]:  # There may be no sample of it yet.
            labels = set(getattr(family, "_labelnames", ())) | TARGET_LABELS
            names[family.name + suffix] = names.get(family.name + suffix, set()) | labels
            if suffix == "_bucket":
                names[family.name + suffix] |= {"le"}
        for sample in family.samples:  # Those of the process have no names beforehand.
            names.setdefault(sample.name, set(sample.labels) | TARGET_LABELS)
    return names


def all_metrics() -> CollectorRegistry:
    """All that the page of one process shows, each family with a sample."""
    registry = Metrics().registry
    registry.register(asyncio.run(edge_metrics()))
    return registry


async def edge_metrics() -> EdgeMetrics:
    """The metrics that the components of an edge have declared."""
    metrics = EdgeMetrics()
    async with (
        grpc.aio.insecure_channel("127.0.0.1:9") as channel,
        serving(channel, "127.0.0.1:0", EdgeConfig(), metrics=metrics),
    ):
        return metrics


SERIES = series()


def expressions() -> Iterator[tuple[str, str]]:
    """All expressions, after where they stand."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield panel["title"], target["expr"]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_metrics_and_labels_exist(place: str, expression: str) -> None:
    """Each metric that is asked for is one of ours, and so are the labels that are asked of it."""
    asked = re.findall(r"\b((?:pomogator|process)_\w+|up)(?:\{([^}]*)\})?", expression)
    by = {label for each in re.findall(r"by \(([^)]*)\)", expression) for label in each.split(",")}

    assert asked
    for name, selector in asked:
        labels = SERIES.get(name, TARGET_LABELS if name == "up" else None)
        assert labels is not None, f"{place}: {name} does not exist"
        picked = set(re.findall(r"(\w+)\s*[=!]", selector))
        assert picked <= labels, f"{place}: {name}"
        assert {label.strip() for label in by if label.strip()} <= labels, f"{place}: {name}"


def test_all_metrics_are_shown() -> None:
    """Nothing is counted that the dashboard does not show."""
    shown = " ".join(expression for _, expression in expressions())

    hidden = {
        family.name
        for family in all_metrics().collect()
        if family.name.startswith("pomogator_") and family.name not in shown
    }
    assert not hidden


def test_alerts_say_what_to_do() -> None:
    """Each has a severity, a sentence that says what is wrong, and one that says what to do."""
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["action"].endswith(".")


def test_alerts_fire() -> None:
    """Prometheus' own tool finds the rules sound, and fires them on what they are about."""
    promtool = tool("promtool")
    for arguments in (
        ("check", "rules", str(ALERTS)),
        ("test", "rules", str(ROOT / "tests" / "deploy" / "alerts.yaml")),
    ):
        done = subprocess.run((promtool, *arguments), capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
