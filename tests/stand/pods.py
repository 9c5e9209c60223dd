"""The containers of the overlay `split` as processes, with the manifests' arguments.

Containers are processes with the manifests' arguments, whose files and addresses are
replaced by some of this machine. Tests stand in for the kubelet, the name server and the
controllers, with the manifests' numbers: probes, SIGTERM, grace, replacement.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.deploy.manifests import Object, named
from tests.stand.process import Process

PROBE_S = 0.05
"""The time between probes, shorter than the kubelet's."""


class Pod:
    """A container of a deployment, which may run many times."""

    def __init__(
        self,
        deployment: str,
        program: Sequence[str],
        replaced: Mapping[str, str],
        env: Mapping[str, str],
        ports: Mapping[str, str],
    ) -> None:
        """`replaced` are values of arguments by option, `ports` addresses by their name."""
        self._pod: Object = named("split", "Deployment", deployment)["spec"]["template"]["spec"]
        (self._container,) = self._pod["containers"]
        self._program = program
        self._replaced = replaced
        self._ports = ports
        self.env = dict(env)
        """Variables, the secrets among them, for the next start."""
        self.process = Process()
        """The latest run of the container."""

    @property
    def host(self) -> str:
        """The address of a service in DNS."""
        return self._ports["grpc"].partition(":")[0]

    @property
    def grace_s(self) -> float:
        """The time from SIGTERM to SIGKILL: the grace period without the pre-stop pause."""
        pause_s: int = self._container["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace_s: int = self._pod["terminationGracePeriodSeconds"]
        return grace_s - pause_s

    async def start(self) -> None:
        """Starts the container, and returns once its startup probe passes."""
        command = (sys.executable, "-m", *self._program, *self._arguments())
        self.process = Process(*command, env=self.env)
        await self.process.spawn()
        while not await self.passes("startupProbe"):
            assert self.process.running, self.process.log
            await asyncio.sleep(PROBE_S)

    def _arguments(self) -> Sequence[str]:
        given: list[str] = self._container["args"]
        return [
            f"{option}={self._replaced[option]}" if option in self._replaced else whole
            for whole in given
            for option in [whole.partition("=")[0]]
        ]

    async def passes(self, probe: str) -> bool:
        """Whether a probe of the manifest passes, with the manifest's timeout."""
        spec = self._container[probe]
        url = f"http://{await self._address(spec['httpGet']['port'])}{spec['httpGet']['path']}"
        timeout = aiohttp.ClientTimeout(total=spec.get("timeoutSeconds", 1))
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def ready(self) -> None:
        """Returns once its readiness probe passes."""
        while not await self.passes("readinessProbe"):  # noqa: ASYNC110 - as the kubelet does
            await asyncio.sleep(PROBE_S)

    async def _address(self, port: str) -> str:
        return self._ports.get(port) or await self.address()

    async def address(self) -> str:
        """The address of an edge."""
        return await self.process.address("http")

    async def ended(self) -> int:
        """The exit code, within the grace of the manifest."""
        async with asyncio.timeout(self.grace_s):
            return await self.process.ended()

    async def kill(self) -> None:
        """Kills the process if it runs."""
        await self.process.stop()

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        url = f"http://{self._ports['metrics']}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def service_pod(number: int, folder: Path, ports: tuple[int, int], env: Mapping[str, str]) -> Pod:
    """A replica of the service, at an address of its own; `ports` are gRPC's and the metrics'."""
    host = f"127.0.0.{number + 1}"
    grpc, metrics = (f"{host}:{port}" for port in ports)
    image = {  # As in deploy/Dockerfile.
        "POMOGATOR_STATE": str(folder / f"state-{number}"),
        "POMOGATOR_GRPC": grpc,
        "POMOGATOR_METRICS": metrics,
    }
    replaced = {
        "--config": str(folder / "pomogator.toml"),
        **_certificates(folder / "service-tls", "--tls-client-ca", "--tls-cert", "--tls-key"),
    }
    return Pod(
        "pomogator", ("services",), replaced, {**image, **env}, {"grpc": grpc, "metrics": metrics}
    )


def edge_pod(folder: Path, target: str) -> Pod:
    """The edge before the services at `target`."""
    replaced = {
        "--rest": "127.0.0.1:0",
        "--metrics": "127.0.0.1:0",
        "--target": target,
        **_certificates(folder / "edge-tls", "--target-ca", "--target-cert", "--target-key"),
    }
    return Pod("pomogator-edge", ("gateway",), replaced, {}, {})


def _certificates(folder: Path, ca: str, certificate: str, key: str) -> dict[str, str]:
    files: dict[str, Any] = {ca: "ca.crt", certificate: "tls.crt", key: "tls.key"}
    return {option: str(folder / name) for option, name in files.items()}
