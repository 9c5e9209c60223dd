"""Allowed connections: the policies of an overlay, taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.deploy.manifests import OVERLAYS, Object, matches, of_kind, workloads

CALLERS = "namespaces pomogator.client=true"
MONITORING = "namespaces pomogator.monitoring=true"
GATEWAYS = "namespaces kubernetes.io/metadata.name=gateways"
STORES = "namespaces pomogator.stores=true"
DNS = {
    f"to namespaces kubernetes.io/metadata.name=kube-system, pods k8s-app=kube-dns: {port}"
    for port in ("UDP 53", "TCP 53")
}
PROVIDERS = {"to 0.0.0.0/0 but those inside: TCP 443", "to ::/0 but those inside: TCP 443"}
DATABASES = {f"to {STORES}: TCP {port}" for port in (5432, 6432, 6379)}
WATCHED = {f"from {MONITORING}: TCP metrics"}
SERVES_BOTH = {f"from {CALLERS}: TCP http", f"from {CALLERS}: TCP grpc"}
ROUTED = {f"from {GATEWAYS}: TCP http"}

FLOWS: Mapping[str, Mapping[str, set[str]]] = {
    "single": {"pomogator": DNS | PROVIDERS | SERVES_BOTH | WATCHED},
    "fleet": {
        "pomogator": DNS | PROVIDERS | DATABASES | SERVES_BOTH | WATCHED | ROUTED,
        "pomogator-migration": DNS | DATABASES,
    },
    "split": {
        "pomogator": {
            *(DNS | PROVIDERS | DATABASES | WATCHED),
            f"from {CALLERS}: TCP grpc",
            "from pods app.kubernetes.io/name=pomogator-edge: TCP grpc",
        },
        "pomogator-edge": {
            *(DNS | WATCHED | ROUTED),
            f"from {CALLERS}: TCP http",
            "to pods app.kubernetes.io/name=pomogator: TCP grpc",
        },
        "pomogator-migration": DNS | DATABASES,
    },
}
"""Connections of each workload's pods. `default-deny` forbids all others."""


def named(peer: Object) -> str:
    """The name of a peer. Another test checks the exceptions of a block of addresses."""
    if "ipBlock" in peer:
        assert peer.keys() == {"ipBlock"}
        return f"{peer['ipBlock']['cidr']} but those inside"
    parts = []
    for kind, name in (("namespaceSelector", "namespaces"), ("podSelector", "pods")):
        if kind in peer:
            ((label, value),) = peer[kind]["matchLabels"].items()
            parts.append(f"{name} {label}={value}")
    return ", ".join(parts)


def allowed(overlay: str, labels: Object) -> Iterator[str]:
    """The allowed connections of pods with these labels."""
    for policy in of_kind(overlay, "NetworkPolicy"):
        if matches(policy["spec"]["podSelector"], labels):
            for way, word in (("ingress", "from"), ("egress", "to")):
                for rule in policy["spec"].get(way, ()):
                    for peer in rule[word]:
                        for port in rule["ports"]:
                            yield f"{word} {named(peer)}: {port['protocol']} {port['port']}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_reach_what_they_need_and_no_more(overlay: str) -> None:
    """The policies together allow each pod exactly what is written down for it."""
    found = {
        workload["metadata"]["name"]: set(allowed(overlay, pod["metadata"]["labels"]))
        for workload, pod in workloads(overlay)
    }

    assert found == FLOWS[overlay]
