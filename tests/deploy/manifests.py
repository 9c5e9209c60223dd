"""The manifests of an overlay, as a cluster would get them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("single", "fleet", "split")
CHART = ROOT / "deploy" / "helm" / "pomogator"

Object = dict[str, Any]


def tool(name: str) -> str:
    """The path of a program of the group `test`; skips where it is not installed."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@lru_cache
def rendered(overlay: str) -> Sequence[Object]:
    """All objects of an overlay."""
    return _built(ROOT / "deploy" / "kubernetes" / "overlays" / overlay)


def component(name: str, scratch: Path, overlay: str = "") -> Sequence[Object]:
    """All objects of a component, by itself or over an overlay. `scratch` is an empty folder."""
    root = Path(os.path.relpath(ROOT / "deploy" / "kubernetes", scratch))
    text = f"components: [{root / 'components' / name}]\n"
    if overlay:
        text += f"resources: [{root / 'overlays' / overlay}]\n"
    (scratch / "kustomization.yaml").write_text(text)
    return _built(scratch)


def templated(*options: str) -> Sequence[Object]:
    """All objects of the chart, in the namespace and with the name that the overlays have."""
    name = ("pomogator", str(CHART), "--namespace", "pomogator")
    done = subprocess.run(
        (tool("helm"), "template", *name, *options), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def _built(folder: Path) -> Sequence[Object]:
    done = subprocess.run(
        (tool("kubectl"), "kustomize", str(folder)), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> Iterator[Object]:
    """The objects of one kind."""
    return (each for each in rendered(overlay) if each["kind"] == kind)


def named(overlay: str, kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = (each for each in of_kind(overlay, kind) if each["metadata"]["name"] == name)
    return found


def workloads(overlay: str) -> Iterator[tuple[Object, Object]]:
    """Each workload, with the template of its pods."""
    for kind in ("Deployment", "Job"):
        for workload in of_kind(overlay, kind):
            yield workload, workload["spec"]["template"]


def matches(selector: Object, labels: Object) -> bool:
    """Whether a selector by labels takes these labels. An empty one takes all."""
    assert selector.keys() <= {"matchLabels"}
    wanted: Object = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
