"""A real Kubernetes API server on this machine, without a node: it validates what is applied."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.manifests import Object, tool
from tests.stand.ports import free_ports

TOKEN = "administrator"
CONFIG: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
    "users": [{"name": "admin", "user": {"token": TOKEN}}],
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Client of an API server: kubectl."""

    config: Path
    """Configuration of kubectl that leads to the server."""

    async def kubectl(self, *arguments: str, objects: tuple[Object, ...] = ()) -> tuple[int, str]:
        """The exit code and the output of kubectl for objects on its standard input."""
        process = await asyncio.create_subprocess_exec(
            *(tool("kubectl"), "--kubeconfig", str(self.config), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        said, _ = await process.communicate(json.dumps(listed).encode())
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def apply(self, *objects: Object, dry_run: bool = False) -> tuple[int, str]:
        """Applies them, on the server's side; a warning of the server is an error."""
        how = ("--server-side", "--warnings-as-errors", "--validate=strict", "--force-conflicts")
        only = ("--dry-run=server",) if dry_run else ()
        return await self.kubectl("apply", *how, *only, "--filename", "-", objects=objects)


@asynccontextmanager
async def running(programs: Path, state: Path) -> AsyncIterator[Cluster]:
    """An API server over etcd, both on loopback, which knows the definitions of others' kinds."""
    store, peers, port = free_ports(3)
    key = state / "tokens.key"
    await _run("openssl", "genrsa", "-out", key, "2048")
    (state / "admins.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    server = f"https://127.0.0.1:{port}"
    cluster = {"server": server, "insecure-skip-tls-verify": True}
    config = state / "config"
    config.write_text(json.dumps({**CONFIG, "clusters": [{"name": "here", "cluster": cluster}]}))
    etcd = (
        *(programs / "etcd", "--data-dir", state / "etcd", "--log-level", "error"),
        *("--listen-client-urls", f"http://127.0.0.1:{store}"),
        *("--advertise-client-urls", f"http://127.0.0.1:{store}"),
        *("--listen-peer-urls", f"http://127.0.0.1:{peers}"),
    )
    api_server = (
        *(programs / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{store}"),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
        # It must name an address that is not loopback, and announces it nowhere.
        *("--advertise-address", "192.0.2.1", "--endpoint-reconciler-type", "none"),
        *("--cert-dir", state / "certificates", "--token-auth-file", state / "admins.csv"),
        *("--service-account-issuer", server, "--service-account-key-file", key),
        *("--service-account-signing-key-file", key, "--authorization-mode", "RBAC"),
        *("--service-cluster-ip-range", "10.0.0.0/24"),
    )
    async with AsyncExitStack() as stack:
        for name, command in (("etcd", etcd), ("api_server", api_server)):
            await stack.enter_async_context(_process(state / f"{name}.log", *command))
        here = Cluster(config)
        await _until(here, "get", "--raw", "/readyz")
        await _until(here, "get", "namespace", "default")
        definitions = ("apply", "--server-side", "--filename", str(programs / "definitions"))
        code, said = await here.kubectl(*definitions)
        assert code == 0, said
        await _until(here, "wait", "--for", "condition=established", "crd", "--all")
        yield here


@asynccontextmanager
async def _process(log: Path, *command: str | Path) -> AsyncIterator[None]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file)
        try:
            yield
        finally:
            process.kill()
            await process.wait()


async def _until(cluster: Cluster, *arguments: str) -> None:
    """Polls until the condition holds: kubectl's `wait` needs a server that answers."""
    said = ""
    for _ in range(200):
        code, said = await cluster.kubectl(*arguments)
        if code == 0:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(said)


async def _run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    assert await process.wait() == 0
