"""The manifests: valid, consistent with each other, and without needless privileges."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.arguments import parser as edge_parser
from services.cli.arguments import parser
from services.config import load
from services.providers.registry import DIALECTS
from services.serving.servicers import PUBLIC_SERVICES
from tests.deploy.manifests import (
    OVERLAYS,
    Object,
    component,
    matches,
    named,
    of_kind,
    rendered,
    workloads,
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
CUSTOM = frozenset({"HTTPRoute", "ServiceMonitor"})
"""Kinds of custom resources, which no schema of Kubernetes has."""

LEAVING_S = 15
"""Time that a process needs after its last call, for the books and the sockets."""

INSIDE = (
    *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "127.0.0.1"),
    *("169.254.169.254", "fd00::1", "fc00::1", "fe80::1", "::1", "64:ff9b::7f00:1"),
)
"""Addresses that no request may make the gateway call, the cloud's metadata among them."""

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@every_overlay
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"{version[0]}.{version[1]}")
def test_schema(overlay: str, version: tuple[int, int]) -> None:
    """Every object is valid in this version of Kubernetes, without unknown fields."""
    for each in rendered(overlay):
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, "{}.{}".format(*version), strict=True)


@every_overlay
def test_namespace_enforces_restricted(overlay: str) -> None:
    """The namespace refuses pods below the standard `restricted`; all objects are in it."""
    labels = named(overlay, "Namespace", "pomogator")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for each in rendered(overlay):
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "pomogator"


@every_overlay
def test_pods_are_locked_down(overlay: str) -> None:
    """No root, no privilege, no writable root, no token, no host, no unbounded volume."""
    for _, pod in workloads(overlay):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        for volume in spec["volumes"]:
            assert volume.keys() & {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]
            # Its group may read it, which is the pod's own.
            assert "secret" not in volume or volume["secret"]["defaultMode"] == 0o440
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@every_overlay
def test_nothing_has_rights_in_the_cluster(overlay: str) -> None:
    """There is no role and no binding, and the account mounts no token."""
    kinds = {each["kind"] for each in rendered(overlay)}

    assert not kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret"}
    account = named(overlay, "ServiceAccount", "pomogator")
    assert account["automountServiceAccountToken"] is False


@every_overlay
def test_resources_are_bounded(overlay: str) -> None:
    """Each container has requests, and a limit on memory."""
    for _, pod in workloads(overlay):
        for container in pod["spec"]["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory", "ephemeral-storage"} <= resources["requests"].keys()
            assert {"memory", "ephemeral-storage"} <= resources["limits"].keys()


@every_overlay
def test_images_are_of_a_version(overlay: str) -> None:
    """No image has the tag `latest`."""
    for _, pod in workloads(overlay):
        for container in pod["spec"]["containers"]:
            _, _, tag = container["image"].rpartition("/")[2].partition(":")
            assert tag not in {"", "latest"}


@every_overlay
def test_traffic_is_denied_by_default(overlay: str) -> None:
    """Each allowed direction has its ports."""
    denied = named(overlay, "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in of_kind(overlay, "NetworkPolicy"):
        for way, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way, ()):
                assert rule["ports"]
                assert rule[peers]


@every_overlay
def test_internal_addresses_are_not_reached_as_providers(overlay: str) -> None:
    """Allowed blocks exclude addresses of clusters, clouds and loopback."""
    blocks = [
        (rule["ports"], peer["ipBlock"])
        for policy in of_kind(overlay, "NetworkPolicy")
        for rule in policy["spec"].get("egress", ())
        for peer in rule["to"]
        if "ipBlock" in peer
    ]

    assert len(blocks) == 2
    for ports, block in blocks:
        assert ports == [{"protocol": "TCP", "port": 443}]
        whole = ipaddress.ip_network(block["cidr"])
        excepted = [ipaddress.ip_network(each) for each in block["except"]]
        for text in INSIDE:
            address = ipaddress.ip_address(text)
            if address in whole:
                assert any(address in each for each in excepted), text


@every_overlay
def test_metrics_are_for_monitoring_alone(overlay: str) -> None:
    """Their port is open to namespaces with the label of monitoring."""
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            if any(port["port"] in {"metrics", 9090} for port in rule["ports"]):
                assert rule["from"] == [
                    {"namespaceSelector": {"matchLabels": {"pomogator.monitoring": "true"}}}
                ]


@every_overlay
def test_monitoring_finds_every_deployment(overlay: str, tmp_path: Path) -> None:
    """Each has a service for its metrics' port alone, with the label that the monitor selects."""
    (monitor,) = component("monitoring", tmp_path)
    services = [
        each["spec"]
        for each in of_kind(overlay, "Service")
        if matches(monitor["spec"]["selector"], each["metadata"]["labels"])
    ]
    for deployment in of_kind(overlay, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        (service,) = (
            each for each in services if matches({"matchLabels": each["selector"]}, labels)
        )
        assert [port["targetPort"] for port in service["ports"]] == ["metrics"]


@pytest.mark.parametrize("overlay", ["fleet", "split"])
def test_traces_go_to_the_collector_alone(overlay: str, tmp_path: Path) -> None:
    """With the component every deployment names the collector, and may reach it."""
    objects = component("traces", tmp_path, overlay)
    (policy,) = (
        each
        for each in objects
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "traces"
    )
    (rule,) = policy["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 4317}]
    assert rule["to"][0].keys() == {"namespaceSelector", "podSelector"}
    deployments = [each for each in objects if each["kind"] == "Deployment"]
    assert len(deployments) == len(list(of_kind(overlay, "Deployment")))
    for deployment in deployments:
        pod = deployment["spec"]["template"]
        assert matches(policy["spec"]["podSelector"], pod["metadata"]["labels"])
        env = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        assert str(env["OTEL_EXPORTER_OTLP_ENDPOINT"]).endswith(":4317")
        assert env["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
        assert 0 < float(env["OTEL_TRACES_SAMPLER_ARG"] or 0) <= 1


@every_overlay
def test_grace_is_long_enough(overlay: str) -> None:
    """No pod is killed while it drains."""
    for workload, pod in workloads(overlay):
        if workload["kind"] == "Deployment":
            (container,) = pod["spec"]["containers"]
            pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            needed_s = pause_s + _drain_s(container) + LEAVING_S
            assert pause_s >= 5
            assert pod["spec"]["terminationGracePeriodSeconds"] >= needed_s


def _drain_s(container: Object) -> float:
    """The longest drain in all: edge and gRPC service drain one after the other."""
    if container["args"][0] != "serve":
        edge = edge_parser({}).parse_args(container["args"])
        return float(edge.shutdown_delay + edge.drain_timeout)
    options = parser({}).parse_args(container["args"])
    return float(options.shutdown_delay + options.drain_timeout * (1 if options.only else 2))


@every_overlay
def test_liveness_depends_on_the_process_alone(overlay: str) -> None:
    """A database outage or a drain makes pods unready, and restarts none."""
    for workload, pod in workloads(overlay):
        if workload["kind"] == "Deployment":
            (container,) = pod["spec"]["containers"]
            live, ready = container["livenessProbe"], container["readinessProbe"]
            assert live["httpGet"]["path"] == "/healthz"
            if "grpc" in ready:
                assert ready["grpc"]["service"] in PUBLIC_SERVICES
            else:
                assert ready["httpGet"]["path"] == "/readyz"
            assert container["startupProbe"]


@every_overlay
def test_probes_need_no_certificate(overlay: str) -> None:
    """The kubelet's gRPC probes are plain text without a certificate."""
    for workload, pod in workloads(overlay):
        if workload["kind"] == "Deployment":
            (container,) = pod["spec"]["containers"]
            if any(each.startswith("--tls-") for each in container["args"]):
                probes = [each for name, each in container.items() if name.endswith("Probe")]
                assert len(probes) == 3
                assert {each["httpGet"]["port"] for each in probes} == {"metrics"}


@every_overlay
def test_updates_keep_capacity(overlay: str) -> None:
    """Replicas are replaced one by one, the new one first. The one pod of SQLite stops first."""
    for deployment in of_kind(overlay, "Deployment"):
        strategy = deployment["spec"]["strategy"]
        if overlay == "single":
            assert strategy == {"type": "Recreate"}
            assert deployment["spec"]["replicas"] == 1
        else:
            assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
            assert "replicas" not in deployment["spec"], "the autoscaler's to say"
            pod = deployment["spec"]["template"]
            spread = pod["spec"]["topologySpreadConstraints"]
            assert [each["topologyKey"] for each in spread] == [
                "topology.kubernetes.io/zone",
                "kubernetes.io/hostname",
            ]
            assert all(matches(each["labelSelector"], pod["metadata"]["labels"]) for each in spread)


@pytest.mark.parametrize("overlay", ["fleet", "split"])
@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "HorizontalPodAutoscaler"])
def test_every_deployment_is_kept_up(overlay: str, kind: str) -> None:
    """Each has a budget for disruptions, and an autoscaler with at least two replicas."""
    deployments = {each["metadata"]["name"] for each in of_kind(overlay, "Deployment")}

    assert {each["metadata"]["name"] for each in of_kind(overlay, kind)} == deployments
    for each in of_kind(overlay, kind):
        if kind == "HorizontalPodAutoscaler":
            assert each["spec"]["scaleTargetRef"]["name"] in deployments
            assert each["spec"]["minReplicas"] >= 2
        else:
            pod = named(overlay, "Deployment", each["metadata"]["name"])["spec"]["template"]
            assert matches(each["spec"]["selector"], pod["metadata"]["labels"])


@every_overlay
def test_services_find_pods(overlay: str) -> None:
    """Each service selects pods that have its ports; each port of a route is a service's."""
    pods = [pod for workload, pod in workloads(overlay) if workload["kind"] == "Deployment"]
    for service in of_kind(overlay, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        (pod,) = (pod for pod in pods if matches(selector, pod["metadata"]["labels"]))
        names = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for route in of_kind(overlay, "HTTPRoute"):
        (rule,) = route["spec"]["rules"]
        (backend,) = rule["backendRefs"]
        ports = named(overlay, "Service", backend["name"])["spec"]["ports"]
        assert backend["port"] in {port["port"] for port in ports}
        assert int(rule["timeouts"]["request"].removesuffix("s")) >= 1800


@every_overlay
def test_policies_find_pods(overlay: str) -> None:
    """Each policy selects pods that exist, by their labels."""
    pods = [pod["metadata"]["labels"] for _, pod in workloads(overlay)]
    for policy in of_kind(overlay, "NetworkPolicy"):
        assert any(matches(policy["spec"]["podSelector"], labels) for labels in pods)


@every_overlay
def test_the_configuration_is_valid_and_watched(overlay: str, tmp_path: Path) -> None:
    """The loader accepts it, and the server watches the mounted file."""
    (config,) = of_kind(overlay, "ConfigMap")
    path = tmp_path / "pomogator.toml"
    path.write_text(config["data"]["pomogator.toml"])

    assert tomllib.loads(path.read_text())
    assert load(path, {"ANTHROPIC_API_KEY": "k"}, dialects=DIALECTS).channels
    assert config["metadata"]["name"] == "pomogator-config"
    pod = named(overlay, "Deployment", "pomogator")["spec"]["template"]["spec"]
    assert {"name": "config", "configMap": {"name": "pomogator-config"}} in pod["volumes"]
    (container,) = pod["containers"]
    options = parser({}).parse_args(container["args"])
    assert options.watch_config
    # The folder, for a file that is mounted alone (`subPath`) is never replaced.
    mount = {"name": "config", "mountPath": str(options.config.parent), "readOnly": True}
    assert mount in container["volumeMounts"]


@every_overlay
def test_arguments_are_understood(overlay: str) -> None:
    """The programs know each option of their containers."""
    known = subprocess.run(
        (sys.executable, "-m", "gateway", "--help"), capture_output=True, check=True, text=True
    )
    for _, pod in workloads(overlay):
        for container in pod["spec"]["containers"]:
            if container["name"] == "edge":
                options = {each.partition("=")[0] for each in container["args"]}
                assert options <= set(known.stdout.replace(",", " ").replace("[", " ").split())
            else:
                parser({}).parse_args(container["args"])


def test_the_edge_holds_no_secret() -> None:
    """It has no variable, no secret but its own certificate, and reaches the service alone."""
    pod = named("split", "Deployment", "pomogator-edge")["spec"]["template"]
    (container,) = pod["spec"]["containers"]

    assert not container.keys() & {"env", "envFrom"}
    tls, tmp = pod["spec"]["volumes"]
    assert tls["secret"]["secretName"] == "pomogator-edge-tls"
    assert tmp["name"] == "tmp"
    reached = [
        (rule["to"], [port["port"] for port in rule["ports"]])
        for policy in of_kind("split", "NetworkPolicy")
        if policy["metadata"]["name"] != "dns"
        and matches(policy["spec"]["podSelector"], pod["metadata"]["labels"])
        for rule in policy["spec"].get("egress", ())
    ]
    server = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "pomogator"}}}
    assert reached == [([server], ["grpc"])]


def test_edge_and_service_present_certificates() -> None:
    """Both have files of mounted secrets, so that no link between them is plain text."""
    service, edge = (
        named("split", "Deployment", name)["spec"]["template"]["spec"]
        for name in ("pomogator", "pomogator-edge")
    )
    tls = parser({}).parse_args(service["containers"][0]["args"])
    assert tls.insecure == {"metrics"}
    shown = edge["containers"][0]["args"]
    assert "--insecure=rest,metrics" in shown
    files = {"--target-ca": "ca.crt", "--target-cert": "tls.crt", "--target-key": "tls.key"}
    assert {f"{name}=/etc/pomogator-tls/{file}" for name, file in files.items()} < set(shown)
    assert [str(each) for each in (tls.tls_client_ca, tls.tls_cert, tls.tls_key)] == [
        f"/etc/pomogator-tls/{file}" for file in files.values()
    ]
    for spec, secret in ((service, "pomogator-service-tls"), (edge, "pomogator-edge-tls")):
        mount = {"name": "tls", "mountPath": "/etc/pomogator-tls", "readOnly": True}
        assert mount in spec["containers"][0]["volumeMounts"]
        (volume,) = (each for each in spec["volumes"] if each["name"] == "tls")
        assert volume["secret"]["secretName"] == secret


def test_certificates_match_names(tmp_path: Path) -> None:
    """Certificates of cert-manager are mounted, have the called names, and are authorized."""
    made = component("certificates", tmp_path)
    issued = {
        each["spec"]["secretName"]: each["spec"]
        for each in made
        if each["kind"] == "Certificate" and not each["spec"].get("isCA")
    }
    assert issued.keys() == {"pomogator-service-tls", "pomogator-edge-tls"}

    (config,) = of_kind("split", "ConfigMap")
    clients = tomllib.loads(config["data"]["pomogator.toml"])["client_certificates"]
    assert {*clients} == {f"{service}/*" for service in PUBLIC_SERVICES}
    for names in clients.values():
        assert names == issued["pomogator-edge-tls"]["dnsNames"]
    edge = named("split", "Deployment", "pomogator-edge")["spec"]["template"]["spec"]
    (target,) = (
        each for each in edge["containers"][0]["args"] if each.startswith("--target=dns:///")
    )
    host = target.removeprefix("--target=dns:///").partition(":")[0]
    assert host in issued["pomogator-service-tls"]["dnsNames"]
    for spec, usage in (
        ("pomogator-service-tls", "server auth"),
        ("pomogator-edge-tls", "client auth"),
    ):
        assert usage in issued[spec]["usages"]


@pytest.mark.parametrize("overlay", ["single", "fleet"])
def test_plain_text_is_named(overlay: str) -> None:
    """`--insecure` names each link that another program encrypts. Operators use a socket."""
    pod = named(overlay, "Deployment", "pomogator")["spec"]["template"]["spec"]
    options = parser({}).parse_args(pod["containers"][0]["args"])

    assert options.insecure == {"rest", "grpc", "metrics"}
    assert options.ops is None


@pytest.mark.parametrize("overlay", ["fleet", "split"])
def test_a_fleet_shares_its_stores(overlay: str) -> None:
    """All replicas have the same database, counters and pepper, by reference to secrets."""
    pod = named(overlay, "Deployment", "pomogator")["spec"]["template"]
    (container,) = pod["spec"]["containers"]

    given = {each["name"]: each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"]}
    assert given == {
        "POMOGATOR_DATABASE_URL": "pomogator-database",
        "POMOGATOR_REDIS_URL": "pomogator-redis",
        "POMOGATOR_PEPPER": "pomogator-pepper",
    }
    (job,) = of_kind(overlay, "Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == container["image"]
