"""A real API server takes every overlay, as a cluster's would, and refuses what it should.

`POMOGATOR_API_SERVER` names a folder that `python -m tests.nightly.api_server` has filled.
"""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.api_server import Cluster, running
from tests.deploy.manifests import (
    OVERLAYS,
    Object,
    component,
    named,
    rendered,
    templated,
    workloads,
)

PROGRAMS = os.environ.get("POMOGATOR_API_SERVER", "")

pytestmark = pytest.mark.skipif(
    not PROGRAMS, reason="POMOGATOR_API_SERVER is not set: a nightly check, its build takes long"
)


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """An API server that knows what the overlays need, and has nothing yet."""
    async with running(Path(PROGRAMS), tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


COMPONENTS = ("certificates", "traces")
"""Optional components of an overlay."""


async def applied(cluster: Cluster, overlay: str) -> None:
    """Applies an overlay, its namespace first: the rest is judged by its labels."""
    namespace = named(overlay, "Namespace", "pomogator")
    for objects in ((namespace,), rendered(overlay)):
        code, said = await cluster.apply(*objects)
        assert code == 0, said


def pods(overlay: str) -> list[Object]:
    """The pods that the workloads would make."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": workload["metadata"]["name"],
                "namespace": "pomogator",
                "labels": template["metadata"]["labels"],
            },
            "spec": template["spec"],
        }
        for workload, template in workloads(overlay)
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_overlay_is_taken(cluster: Cluster, overlay: str) -> None:
    """Each object passes validation, defaults and admission without a warning, twice over."""
    await applied(cluster, overlay)
    await applied(cluster, overlay)


@pytest.mark.parametrize("name", COMPONENTS)
async def test_component_is_taken(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """The objects that a component adds to the largest overlay pass, too."""
    await applied(cluster, "split")

    code, said = await cluster.apply(*component(name, tmp_path, "split"), dry_run=True)

    assert code == 0, said


@pytest.mark.parametrize("mode", OVERLAYS)
async def test_chart_is_taken(cluster: Cluster, mode: str) -> None:
    """The objects of the Helm chart are accepted, too."""
    await applied(cluster, mode)
    options = f"mode={mode},certificates.enabled=true"

    code, said = await cluster.apply(*templated("--set", options), dry_run=True)

    assert code == 0, said


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_pods_are_admitted(cluster: Cluster, overlay: str) -> None:
    """Pod Security admission lets the pods of all workloads into the restricted namespace."""
    await applied(cluster, overlay)

    code, said = await cluster.apply(*pods(overlay), dry_run=True)

    assert code == 0, said


async def test_pods_with_more_rights_are_refused(cluster: Cluster) -> None:
    """The same pod with one restriction less is not admitted: the namespace's label works."""
    await applied(cluster, "single")
    (pod,) = pods("single")
    loose = copy.deepcopy(pod)
    del loose["spec"]["containers"][0]["securityContext"]["capabilities"]

    code, said = await cluster.apply(loose, dry_run=True)

    assert code != 0
    assert 'violates PodSecurity "restricted' in said


@pytest.mark.parametrize("kind", ["Deployment", "HTTPRoute", "ServiceMonitor"])
async def test_a_misspelled_field_is_refused(cluster: Cluster, kind: str) -> None:
    """Nothing is silently dropped, of our own kinds and of others'."""
    await applied(cluster, "fleet")
    misspelled = copy.deepcopy(named("fleet", kind, "pomogator"))
    misspelled["spec"]["replicaz"] = 1

    code, said = await cluster.apply(misspelled, dry_run=True)

    assert code != 0
    assert "replicaz" in said
