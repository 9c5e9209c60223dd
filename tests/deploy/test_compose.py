"""The composition fits together, and opens nothing to the network."""

from __future__ import annotations

import subprocess
from typing import Any
from urllib.parse import urlsplit

import yaml

from services.cli.arguments import parser
from services.config import load
from services.providers.registry import DIALECTS
from tests.deploy.manifests import ROOT, tool

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_ports_are_published_on_loopback() -> None:
    """No other machine can connect."""
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_images_are_of_a_version() -> None:
    """Each image that is not built from the checkout has a version."""
    for name, service in SERVICES.items():
        image = service.get("image", "")
        assert "build" in service or image.rpartition(":")[2][-1].isdigit(), name


def test_mounts_exist() -> None:
    """Each path exists in the checkout, each volume is declared."""
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source


def test_the_server_understands_its_arguments() -> None:
    """Its command line and configuration are valid, and its grace period covers a drain."""
    server = SERVICES["pomogator"]
    options = parser({}).parse_args(server["command"])

    assert load(
        DEPLOY / "kubernetes" / "base" / "pomogator.toml",
        {"OPENAI_API_KEY": "k"},
        dialects=DIALECTS,
    ).channels
    assert int(server["stop_grace_period"].removesuffix("s")) >= 2 * options.drain_timeout + 15


def test_the_file_has_no_password() -> None:
    """The operator sets them."""
    given = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if name.endswith(("PASSWORD", "_API_KEY", "DATABASE_URL"))
    ]

    assert len(given) == 5
    assert all("${" in value for value in given)


def test_traces_go_to_jaeger() -> None:
    """The collector is a service of the file, on the port of OTLP over gRPC."""
    endpoint = SERVICES["pomogator"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    url = urlsplit(endpoint)

    assert url.port == 4317
    assert "jaeger" in SERVICES[url.hostname]["image"]
    sources = yaml.safe_load((DEPLOY / "compose" / "grafana-sources.yaml").read_text())
    hosts = {urlsplit(source["url"]).hostname for source in sources["datasources"]}
    assert hosts <= SERVICES.keys()


def test_prometheus_accepts_its_configuration() -> None:
    """Promtool accepts it, and it scrapes the server's metrics."""
    path = DEPLOY / "compose" / "prometheus.yaml"
    (job,) = yaml.safe_load(path.read_text())["scrape_configs"]

    assert job["static_configs"] == [{"targets": ["pomogator:9090"]}]
    command = (tool("promtool"), "check", "config", "--syntax-only", str(path))
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
