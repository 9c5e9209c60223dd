"""Stubs of other languages, made with the commands of `proto/README.md`, and clients of them.

And the tools of others that read the contract: grpc-gateway from its files, `grpcurl` and `ghz` by
reflection.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest

from services.rpc.listener import listening
from services.serving.servicers import PUBLIC_SERVICES
from tests.stand import held_provider

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
MAKE_GO, MAKE_TYPESCRIPT = re.findall(
    r"```sh\n(.*?)```", (PROTO / "README.md").read_text(), re.DOTALL
)
GO = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
MAKE_GATEWAY = f"""{MAKE_GO}
go install github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway@v2.33.0
protoc -I . -I "$googleapis" --grpc-gateway_out="$out" --grpc-gateway_opt="$options" $files
"""
INSTALL_TOOLS = """
go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
go install github.com/bojand/ghz/cmd/ghz@v0.120.0
"""
NODE_MODULES = os.environ.get("POMOGATOR_NODE_MODULES", "")

SAID = {"whole": "Good day", "streamed": "Good day"}

pytest.importorskip("grpc_tools", reason="the group `gen` is not installed")
# A Go client is compiled with all that it imports.
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder where a client is made."""

    folder: Path
    """Its sources, and what is made of them."""
    env: Mapping[str, str]
    """Environment of its programs."""

    async def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Return the output of a program, which must succeed."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd or self.folder,
            env={**os.environ, **self.env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (out + err).decode()
        return out.decode()

    @asynccontextmanager
    async def serving(self, command: str) -> AsyncIterator[str]:
        """Run a program that prints its address; yield its URL."""
        process = await asyncio.create_subprocess_exec(
            command,
            cwd=self.folder,
            env={**os.environ, **self.env},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            yield f"http://{(await process.stdout.readline()).decode().strip()}"
        finally:
            process.kill()
            await process.wait()

    def client(self, url: str) -> aiohttp.ClientSession:
        """Return an HTTP client that sends the key."""
        return aiohttp.ClientSession(
            url, headers={"Authorization": f"Bearer {self.env['API_KEY']}"}
        )

    async def generate(self, commands: str) -> None:
        """Runs commands of the README, where it says that they are run."""
        await self.run("bash", "-euc", commands, cwd=PROTO)


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    """An empty folder, `protoc` on the path, and a service that says good day."""
    programs, folder = tmp_path / "bin", tmp_path / "client"
    programs.mkdir()
    folder.mkdir()
    protoc = programs / "protoc"
    protoc.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    protoc.chmod(0o755)
    path = [str(programs), str(Path(GO).parent) if GO else "", os.environ["PATH"]]
    annotations = files("google.api") / "annotations.proto"
    async with (
        held_provider.held_gateway(tmp_path / "state") as (gateway, _, _),
        listening(
            gateway.service.register, "127.0.0.1:0", reflected=PUBLIC_SERVICES, grace_s=0
        ) as address,
    ):
        env = {
            "PATH": ":".join(path),
            "GOBIN": str(programs),
            "googleapis": str(Path(str(annotations)).parents[2]),
            "out": str(folder),
            "GRPC_TARGET": address,
            "API_KEY": gateway.key,
            "MODEL": held_provider.MODEL,
        }
        yield Workshop(folder, env)


@pytest.mark.nightly
@pytest.mark.skipif(GO is None, reason="Go is not installed")
async def test_a_go_client_compiles_and_gets_answers(workshop: Workshop) -> None:
    """They are whole and streamed."""
    shutil.copytree(HERE / "go", workshop.folder, dirs_exist_ok=True)
    in_module = Workshop(workshop.folder, {**workshop.env, "module": "example.com/client"})

    await in_module.generate(MAKE_GO)
    await in_module.run("go", "build", "-o", "client", ".")

    assert json.loads(await in_module.run("./client")) == SAID


@pytest.mark.nightly
@pytest.mark.skipif(GO is None, reason="Go is not installed")
async def test_grpc_gateway_serves_models_and_failures(workshop: Workshop) -> None:
    """Its JSON has the list, one model, and details of failures."""
    shutil.copytree(HERE / "go_gateway", workshop.folder, dirs_exist_ok=True)
    in_module = Workshop(workshop.folder, {**workshop.env, "module": "example.com/gateway"})
    await in_module.generate(MAKE_GATEWAY)
    await in_module.run("go", "build", "-o", "gateway", ".")
    model = held_provider.MODEL

    async with in_module.serving("./gateway") as url, workshop.client(url) as http:
        listed = await (await http.get("/v1/models")).json()
        one = await (await http.get(f"/v1/models/{model}")).json()
        unknown = await http.get("/v1/models/unheard/of")
        details = (await unknown.json())["details"]

    assert [found["name"] for found in listed["models"]] == [one["model"]["name"]] == [model]
    assert unknown.status == 404
    assert details[0]["reason"] == "NOT_FOUND"


@pytest.mark.nightly
@pytest.mark.skipif(GO is None, reason="Go is not installed")
async def test_tools_call_methods_by_reflection(workshop: Workshop) -> None:
    """`grpcurl` describes and calls a method, `ghz` calls it by its name."""
    await workshop.generate(INSTALL_TOOLS)
    method = "pomogator.models.v1.ModelService.ListModels"
    target, key = workshop.env["GRPC_TARGET"], workshop.env["API_KEY"]
    metadata = json.dumps({"authorization": f"Bearer {key}"})

    described = await workshop.run("grpcurl", "-plaintext", target, "describe", method)
    all_described = await workshop.run("grpcurl", "-plaintext", target, "describe")
    header = f"authorization: Bearer {key}"
    called = await workshop.run("grpcurl", "-plaintext", "-H", header, target, method)
    counts = await workshop.run(
        "ghz", "--insecure", "--call", method, "-m", metadata, "-n", "5", "-O", "json", target
    )

    assert "rpc ListModels (" in described
    assert "grpc.reflection.v1.ServerReflection is a service" in all_described
    assert json.loads(called)["models"][0]["name"] == held_provider.MODEL
    assert json.loads(counts)["statusCodeDistribution"] == {"OK": 5}


@pytest.mark.skipif(
    not (NODE_MODULES and shutil.which("node")),
    reason="POMOGATOR_NODE_MODULES is not set: Node's packages are not at hand",
)
async def test_a_typescript_client_compiles_and_gets_answers(workshop: Workshop) -> None:
    """It passes the strictest check. The answers are whole and streamed."""
    (workshop.folder / "node_modules").symlink_to(NODE_MODULES)
    (workshop.folder / "package.json").write_text('{"type": "module"}')
    for name in ("client.ts", "tsconfig.json"):
        shutil.copyfile(HERE / "node" / name, workshop.folder / name)

    await workshop.generate(MAKE_TYPESCRIPT)
    await workshop.run("node_modules/.bin/tsc", "--project", ".")

    assert json.loads(await workshop.run("node", "client.js")) == SAID
