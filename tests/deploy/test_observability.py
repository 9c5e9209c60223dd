"""Dashboards and alerts use metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping

import pytest
import yaml

from tests.deploy.manifests import ROOT, tool
from tests.deploy.metrics_pages import TABLE, labels_of, running_metrics, table

ALERTS = ROOT / "deploy" / "alerts" / "pomogator.yaml"
DASHBOARDS = sorted((ROOT / "deploy" / "dashboards").glob("*.json"))
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

TARGET_LABELS = {"job", "instance"}
"""Labels that Prometheus adds."""

SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
    "info": (),
}
"""Endings of the series of a family."""


def series() -> Mapping[str, set[str]]:
    """Return the labels of each exposed series."""
    names: dict[str, set[str]] = {}
    for family in METRICS.values():
        labels = {*labels_of(family), *TARGET_LABELS}
        for suffix in SUFFIXES[family.type]:  # There may be no sample of it yet.
            names[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
        for sample in family.samples:
            names.setdefault(sample.name, labels)
    return names


METRICS = running_metrics()
SERIES = series()


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression with its place."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield panel["title"], target["expr"]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_metrics_and_labels_exist(place: str, expression: str) -> None:
    """Alerts and dashboards use only metrics and labels that exist."""
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
    """The dashboard shows every metric."""
    shown = " ".join(expression for _, expression in expressions())

    hidden = {name for name in METRICS if name.startswith("pomogator_") and name not in shown}
    assert not hidden


def test_the_table_of_metrics_is_the_page() -> None:
    """deploy/METRICS.md has each metric with its type, labels and help, and no other."""
    lines = TABLE.read_text().splitlines()

    assert [line for line in lines if line.startswith("| `")] == list(table(METRICS))


def test_counters_and_no_other_metrics_end_in_total() -> None:
    """Prometheus' convention. The client library adds the ending to counters."""
    for name in METRICS:
        assert not name.endswith("_total"), name


def test_each_metric_says_what_it_is() -> None:
    """In a sentence, after our prefix."""
    for name, family in METRICS.items():
        if not name.startswith(("process_", "python_")):
            assert name.startswith("pomogator_")
            assert family.documentation.endswith(".")


def test_alerts_say_what_to_do() -> None:
    """Each has a severity, a sentence that says what is wrong, and one that says what to do."""
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["action"].endswith(".")


def test_alerts_fire() -> None:
    """Promtool accepts the rules, and each fires on its series."""
    promtool = tool("promtool")
    for arguments in (
        ("check", "rules", str(ALERTS)),
        ("test", "rules", str(ROOT / "tests" / "deploy" / "alerts.yaml")),
    ):
        done = subprocess.run((promtool, *arguments), capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
