"""The Helm chart: the same objects as the overlays, and values that are checked."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from gateway.arguments import parser as edge_parser
from services.cli.arguments import parser
from tests.deploy.manifests import (
    CHART,
    OVERLAYS,
    ROOT,
    Object,
    component,
    rendered,
    templated,
    tool,
)

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed"
)

VERSIONS = sorted(
    {
        tuple(int(part) for part in version.split(".")[:2])
        for version in kubernetes_validate.utils.all_versions()
    }
)[-3:]
FOREIGN = frozenset({"HTTPRoute", "ServiceMonitor", "Certificate", "Issuer"})
"""Kinds that no schema of Kubernetes has."""

OF_HELM = ("helm.sh/", "argocd.argoproj.io/")
"""Annotations by which Helm and Argo CD know hooks, and what they keep."""

VALUES: dict[str, Object] = {
    "defaults": {},
    "single": {"mode": "single"},
    "split": {"mode": "split", "certificates": {"enabled": True}},
    "bare": {"route": {"enabled": False}, "serviceMonitor": {"enabled": False}},
    "own names": {"nameOverride": "llm", "mode": "split", "existingConfigMap": "mine"},
    "managed stores": {
        "networkPolicy": {
            "database": {"cidrs": ["10.1.0.0/24", "fd00:1::/64"], "ports": [25060]},
            "redis": {"peers": [{"ipBlock": {"cidr": "10.2.0.0/24"}}], "ports": [6380]},
        }
    },
    "labelled stores": {
        "networkPolicy": {
            "database": {"podLabels": {"app": "pooler", "cluster": "main"}},
            "redis": {"podLabels": {"app": "valkey"}, "cidrs": ["10.2.0.0/24"]},
        }
    },
    "fixed size": {
        "mode": "split",
        "server": {"autoscaling": {"enabled": False}, "replicas": 5},
        "edge": {"autoscaling": {"enabled": False}, "replicas": 4},
    },
    "digests": {
        "image": {"digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "traces": {"mode": "split", "traces": {"endpoint": "http://collector.traces:4317"}},
    "placed": {
        "server": {
            "nodeSelector": {"pool": "gateways"},
            "tolerations": [{"key": "pool", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "high",
            "podAnnotations": {"team": "models"},
            "extraArgs": ["--reflection"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
        },
        "serviceAccount": {"annotations": {"iam.example/role": "gateway"}},
    },
    "long drains": {"mode": "split", "drainTimeoutSeconds": 1200, "preStopSeconds": 20},
    "no policies": {"networkPolicy": {"enabled": False}, "migration": {"enabled": False}},
}

STORES: Object = {"namespaceSelector": {"matchLabels": {"pomogator.stores": "true"}}}
"""Peers of the stores without values: all pods of such a namespace."""

every_version = pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, id="{}.{}".format(*version), marks=marks)
        for version, marks in zip(VERSIONS, ([], [pytest.mark.nightly], []), strict=True)
    ],
)
"""The oldest and the newest; the one between them nightly."""

every_set = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


def chart(values: Object, scratch: Path) -> Sequence[Object]:
    """The objects with these values."""
    path = scratch / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    return templated("--values", str(path))


def compared(objects: Sequence[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name, without labels and the annotations of Helm."""
    found = {}
    for each in copy.deepcopy(objects):
        metadata = each["metadata"]
        metadata.pop("labels", None)
        kept = {
            name: value
            for name, value in metadata.pop("annotations", {}).items()
            if not name.startswith(OF_HELM)
        }
        metadata |= {"annotations": kept} if kept else {}
        found[each["kind"], metadata["name"]] = each
    return found


def pods(objects: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    """Each workload, with the specification of its pods."""
    for each in objects:
        if each["kind"] in {"Deployment", "Job"}:
            yield each, each["spec"]["template"]["spec"]


@pytest.mark.parametrize("mode", OVERLAYS)
def test_modes_are_the_overlays(mode: str) -> None:
    """Object for object. The migration is a hook, whose account is there before the release's."""
    expected, found = compared(rendered(mode)), compared(templated("--set", f"mode={mode}"))

    del expected["Namespace", "pomogator"]
    if mode != "single":
        job = expected.pop(("Job", "pomogator-migration"))
        job["metadata"]["name"] = "pomogator-migration-0-1-0"
        job["spec"]["template"]["spec"]["serviceAccountName"] = "pomogator-migration"
        expected["Job", job["metadata"]["name"]] = job
        account = copy.deepcopy(expected["ServiceAccount", "pomogator"])
        account["metadata"]["name"] = "pomogator-migration"
        expected["ServiceAccount", "pomogator-migration"] = account
    assert found == expected


def test_default_is_the_fleet() -> None:
    """Without values the chart is what most deployments use."""
    assert templated() == templated("--set", "mode=fleet")


def test_certificates_are_those_of_the_component(tmp_path: Path) -> None:
    """With cert-manager the chart issues the same certificates."""
    options = ("--set", "mode=split,certificates.enabled=true")
    found = {key: each for key, each in compared(templated(*options)).items() if key[0] in FOREIGN}
    (tmp_path / "kustomization").mkdir()

    for key, each in compared(component("certificates", tmp_path / "kustomization")).items():
        each["metadata"]["namespace"] = "pomogator"
        assert found[key] == each


@every_set
def test_lint(values: Object, tmp_path: Path) -> None:
    """Helm finds nothing, in strict mode."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    command = (tool("helm"), "lint", "--strict", "--quiet", str(CHART), "--values", str(path))

    done = subprocess.run(command, capture_output=True, check=False, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@every_set
@every_version
def test_schema(values: Object, version: tuple[int, int], tmp_path: Path) -> None:
    """Every object is valid in this version of Kubernetes, without unknown fields."""
    for each in chart(values, tmp_path):
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, "{}.{}".format(*version), strict=True)


@every_set
def test_pods_are_restricted_and_outlive_their_drain(values: Object, tmp_path: Path) -> None:
    """Whatever the values, pods pass the standard `restricted`, and no drain is cut short."""
    for workload, spec in pods(chart(values, tmp_path)):
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        if workload["kind"] == "Deployment":
            is_edge = container["args"][0] != "serve"
            options = (edge_parser if is_edge else parser)({}).parse_args(container["args"])
            drains = 1 if is_edge or options.only else 2
            pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            needed_s = pause_s + options.shutdown_delay + drains * options.drain_timeout + 15
            assert spec["terminationGracePeriodSeconds"] >= needed_s


@pytest.mark.parametrize(
    ("values", "database", "redis"),
    [
        ({}, [STORES], [STORES]),
        (
            VALUES["managed stores"],
            [{"ipBlock": {"cidr": "10.1.0.0/24"}}, {"ipBlock": {"cidr": "fd00:1::/64"}}],
            [{"ipBlock": {"cidr": "10.2.0.0/24"}}],
        ),
        (
            VALUES["labelled stores"],
            [STORES | {"podSelector": {"matchLabels": {"app": "pooler", "cluster": "main"}}}],
            [
                STORES | {"podSelector": {"matchLabels": {"app": "valkey"}}},
                {"ipBlock": {"cidr": "10.2.0.0/24"}},
            ],
        ),
    ],
    ids=["default", "managed", "labelled"],
)
def test_stores_are_reached(
    values: Object, database: Sequence[Object], redis: Sequence[Object], tmp_path: Path
) -> None:
    """In the cluster by namespace and labels, outside of it by addresses, on the ports given."""
    (policy,) = (each for each in chart(values, tmp_path) if each["metadata"]["name"] == "stores")
    given = values.get("networkPolicy", {})

    found = [
        (rule["to"], [port["port"] for port in rule["ports"]]) for rule in policy["spec"]["egress"]
    ]

    assert found == [
        (database, given.get("database", {}).get("ports", [5432, 6432])),
        (redis, given.get("redis", {}).get("ports", [6379])),
    ]


def test_inline_configuration_is_mounted(tmp_path: Path) -> None:
    """The text of the value is the file, unchanged."""
    text = 'defaults = true\n\n[[limits]]\nkey = "*"\nconcurrency = 3\n'

    (found,) = (each for each in chart({"config": text}, tmp_path) if each["kind"] == "ConfigMap")

    assert found["data"]["pomogator.toml"].strip() == text.strip()


def test_another_name_is_everywhere(tmp_path: Path) -> None:
    """No object and no reference but a secret of the user's keeps the name of the chart."""
    objects = chart({"nameOverride": "llm", "mode": "split"}, tmp_path)
    names = {each["metadata"]["name"] for each in objects}

    assert not {name for name in names if name.startswith("pomogator")}
    (edge,) = (each for each in objects if each["metadata"]["name"] == "llm-edge"
               and each["kind"] == "Deployment")  # fmt: skip
    arguments = edge["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--target=dns:///llm-grpc:50051" in arguments
    (config,) = (each for each in objects if each["kind"] == "ConfigMap")
    allowed = tomllib.loads(config["data"]["pomogator.toml"])["client_certificates"]
    assert {name for row in allowed.values() for name in row} == {"llm-edge.pomogator.svc"}


def test_migration_runs_for_every_version() -> None:
    """It is a hook of Helm and of Argo CD, with the version in its name; old ones are replaced."""
    (job,) = (each for each in templated() if each["kind"] == "Job")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]

    assert job["metadata"]["name"].endswith(str(version).replace(".", "-"))
    annotations = job["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert annotations["argocd.argoproj.io/hook"] == "PreSync"


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("mode=cluster", "mode"),
        ("replicas=3", "replicas"),
        ("postgresql.enabled=true", "postgresql"),
        ("server.resources.limits=null", "limits"),
        ("image.digest=latest", "digest"),
        ("preStopSeconds=0", "preStopSeconds"),
        ("traces.ratio=2", "ratio"),
        ("networkPolicy.database.ports={0}", "ports"),
        ("networkPolicy.redis.cidrs={redis.example}", "cidrs"),
    ],
)
def test_wrong_values_are_refused(option: str, named: str) -> None:
    """The schema names the value."""
    done = subprocess.run(
        (tool("helm"), "template", "pomogator", str(CHART), "--set", option),
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"config": "defaults = true", "existingConfigMap": "mine"}, "exclude each other"),
        ({"config": "defaults = true", "mode": "split"}, "needs the table [client_certificates]"),
        ({"config": "# [client_certificates]", "mode": "split"}, "[client_certificates]"),
    ],
)
def test_values_that_contradict_are_refused(values: Object, named: str, tmp_path: Path) -> None:
    """One of the two would have no effect, or the service would be open to every certificate."""
    with pytest.raises(AssertionError, match=re.escape(named)):
        chart(values, tmp_path)


def test_every_value_is_in_the_schema() -> None:
    """At every level, and no other is accepted."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(values: Object, schema: Object) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False
        assert values.keys() <= schema["properties"].keys()
        for name, value in values.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][name])

    compare(values, schema)
    assert schema["properties"].keys() - values.keys() == {"global"}


def test_versions_agree() -> None:
    """The images are those of the project's version, as in the overlays."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert str(about["appVersion"]) == project["version"]
