"""The operators' page: its commands are valid, and its certificates, metrics and events exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from services.cli.arguments import parser
from tests.deploy.manifests import CHART, ROOT, tool
from tests.stand.configuration import configuration
from tests.stand.process import Server
from tests.stand.servers import GRPC, HTTP

DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text()
FIRST_README = (ROOT / "README.md").read_text()


def blocks(page: str) -> list[str]:
    """Return the indented blocks of a page."""
    return [
        re.sub(r"(?m)^    ", "", found).strip("\n")
        for found in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", page)
    ]


BLOCKS = blocks(README)

MAPPED = """
[client_certificates]
"pomogator.chat.v1.ChatCompletionService/*" = ["pomogator-edge.pomogator.svc"]
"pomogator.models.v1.ModelService/*" = ["pomogator-edge.pomogator.svc"]
"""


OF_UPGRADES = frozenset({"--install", "--reuse-values"})
"""Options without a meaning where no release is made."""


def commands(program: str, page: str = README) -> Iterator[list[str]]:
    """The arguments of each command of that name, in blocks and in the text."""
    text = "\n".join(blocks(page)).replace("\\\n", " ")
    lines = re.findall(rf"(?m)(?:^|; )(?:\$ |\w+=\S+ )*({program} [^;\n]*)", text)
    lines += re.findall(rf"`({program} [a-z][^`…]*)`", page.replace("\n", " "))
    return (shlex.split(line, comments=True)[1:] for line in lines)


@pytest.mark.parametrize("page", [FIRST_README, README], ids=["README.md", "deploy/README.md"])
def test_commands_of_the_gateway_are_valid(page: str) -> None:
    """Each is accepted by the parser of the command line."""
    found = [command for command in commands("pomogator", page) if "N" not in command]

    assert len(found) > 5
    for command in found:
        assert parser({}).parse_args(command).command is not None, command


def test_helm_commands_are_valid() -> None:
    """The release can be made, and changed, with these values."""
    for command, shown in zip(commands("helm"), (b"llm.example", b"10.1.0.0/24"), strict=True):
        assert command[0] == "upgrade"
        options = [
            each.replace("deploy/helm/pomogator", str(CHART))
            for each in command[1:]
            if each not in OF_UPGRADES
        ]

        done = subprocess.run(
            (tool("helm"), "template", *options), capture_output=True, check=False
        )

        assert done.returncode == 0, done.stderr.decode()
        assert shown in done.stdout


def test_metrics_and_events_exist() -> None:
    """Each has a row in the page of metrics or of log events."""
    metrics = (DEPLOY / "METRICS.md").read_text()
    (section,) = re.findall(r"(?ms)^## What to watch$(.*?)^## ", README)

    for name in re.findall(r"`(pomogator_\w+)`", README):
        assert f"| `{name}` |" in metrics, name
    events = re.findall(r"`([a-z_]+\.[a-z_]+)`", section)
    assert len(events) > 5
    for event in events:
        assert f"| `{event}` |" in (DEPLOY / "LOGS.md").read_text(), event


def test_fields_of_log_lines_exist() -> None:
    """The paragraph about logs names events and fields of the page of log events."""
    (paragraph,) = re.findall(r"(?m)^\*\*Logs\*\* .*(?:\n.+)*", README)
    listed = (DEPLOY / "LOGS.md").read_text()
    found = re.findall(r"`([a-z_.]+)`", paragraph)

    assert len(found) > 4
    assert [name for name in found if f"| `{name}` |" not in listed] == []


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """The folder in which the page's commands have made the certificates of `split`."""
    (block,) = (each for each in BLOCKS if each.startswith("ec="))
    # Here the service has another name.
    making = block.partition("for name in service edge;")[0].replace(
        "=pomogator-grpc", "=localhost"
    )
    done = subprocess.run(
        ("/bin/sh", "-ec", making), cwd=tmp_path, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


async def test_certificates_connect_edge_and_service(certificates: Path) -> None:
    """The edge verifies the service by its name, and may call what its own name may."""
    config = certificates / "pomogator.toml"
    config.write_text(configuration("http://127.0.0.1:9") + MAPPED)
    service = Server(
        *("--only", "grpc", "--config", config, "--state", certificates / "var"),
        *("--grpc", "127.0.0.1:0", "--metrics", "", "--tls-client-ca", certificates / "ca.crt"),
        *("--tls-cert", certificates / "service.crt", "--tls-key", certificates / "service.key"),
        ready=GRPC,
    )
    await service.start()
    try:
        address = await service.while_running(service.tcp_address())
        edge = Server(
            *("--only", "rest", "--rest", "127.0.0.1:0", "--metrics", ""),
            *("--target", f"localhost:{address.rpartition(':')[2]}"),
            *("--target-ca", certificates / "ca.crt"),
            *("--target-cert", certificates / "edge.crt"),
            *("--target-key", certificates / "edge.key"),
            ready=HTTP,
        )
        url = f"http://{await edge.start()}/v1/models"
        headers = {"Authorization": f"Bearer {await service.first_key()}"}
        async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        await edge.stop()
    finally:
        await service.stop()
