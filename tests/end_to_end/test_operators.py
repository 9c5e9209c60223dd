"""Operators' commands and HTTP, beside a serving process and without one."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.stand.billing_stand import USAGE, bearer, completion
from tests.stand.configuration import MODEL, configuration
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.shell import Shell
from tests.stand.upstream import FakeUpstream, json_answer

TOKEN = secrets.token_hex(16)
TOKEN_VARIABLE = {"POMOGATOR_OPS_TOKEN": TOKEN}
CHAT = {"model": "house/model", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    """A provider that answers everything."""
    async with FakeUpstream() as upstream:
        upstream.play([json_answer(completion(USAGE))])
        yield upstream


async def ask(server: Server, key: str) -> int:
    """The status of one completion."""
    url = f"http://{await server.address('http')}/v1/chat/completions"
    async with (
        aiohttp.ClientSession(headers=bearer(key)) as http,
        http.post(url, json=CHAT) as response,
    ):
        return response.status


async def test_commands_work_beside_a_server_and_without_one(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    """Every command about money works beside a server; without one it sees the same books."""
    shell = Shell(tmp_path)
    async with running_server(
        tmp_path, configuration(upstream.url, prices={"request_usd": 0.25})
    ) as server:
        assert "balance: 0.25 USD" in await shell.run(
            "accounts", "create", "acme", "--credit", "0.25"
        )
        for _ in range(2):
            paid = await shell.run("accounts", "credit", "acme", "0.25", "--request-id", "inv-1")
        assert "balance: 0.50 USD" in paid
        made = await shell.run(
            "keys", "create", "--account", "acme", "--models", "house/model", "--rpm", "60",
            "--tpm", "100000", "--concurrency", "5", "--monthly-usd", "9",
            "--expires", "2100-01-01",
        )  # fmt: skip
        key = made.splitlines()[-1]
        assert [await ask(server, key) for _ in range(3)] == [200, 200, 402]
        server.send_signal(signal.SIGTERM)
        assert await server.ended() == 0

    assert "balance: 0.00 USD\nheld:    0.00 USD" in await shell.run("accounts", "show", "acme")
    used = await shell.run("usage", "--account", "acme", "--since", "2020-01-01")
    assert used.splitlines()[-1].split() == ["TOTAL", "2", "0.50"]
    verified = await shell.run("ledger", "verify")
    assert "settled: 2\n" in verified
    assert verified.endswith("OK: no findings\n")


async def test_commands_over_tcp_need_the_token(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Where the operators' listener is on TCP, commands send the token, and need it."""
    config = configuration(upstream.url, prices={"request_usd": 0.25})
    async with running_server(
        tmp_path, config, "--ops", "127.0.0.1:0", env=TOKEN_VARIABLE
    ) as server:
        # The operators' listener is the first.
        ops = {"POMOGATOR_OPS": await server.address("grpc")}
        operator = Shell(tmp_path, {**ops, **TOKEN_VARIABLE})
        assert "default" in await operator.run("keys", "list")
        assert "OK" in await operator.run("ledger", "verify")
        assert "operators' token" in await Shell(tmp_path, ops).run("keys", "list", code=1)


async def test_commands_find_the_local_server_of_a_shared_database(
    tmp_path: Path, upstream: FakeUpstream, postgres_url: str
) -> None:
    """A shared database does not hide the server that runs here."""
    stores = {"POMOGATOR_DATABASE_URL": postgres_url, "POMOGATOR_PEPPER": "sixteen bytes or more"}
    shell = Shell(tmp_path, stores)
    async with running_server(
        tmp_path, configuration(upstream.url, prices={"request_usd": 0.25}), env=stores
    ) as server:
        assert await shell.run("reload") == "reloaded\n"
        await server.event("config.reloaded")
        assert "house" in await shell.run("channels", "list")
        server.send_signal(signal.SIGKILL)
        await server.ended()

    # Its socket is left, and nobody listens there.
    assert "default" in await shell.run("keys", "list")
    assert "no server runs" in await shell.run("reload", code=1)


async def test_operators_methods_are_served_over_http(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    """The same over HTTP, with the token, on a listener of its own."""
    config = configuration(upstream.url, prices={"request_usd": 0.25})
    arguments = ("--ops-rest", "127.0.0.1:0")
    async with (
        running_server(tmp_path, config, *arguments, env=TOKEN_VARIABLE) as server,
        aiohttp.ClientSession(headers=bearer(TOKEN)) as http,
    ):
        url = f"http://{await server.address('operators-http')}/v1"
        public = f"http://{await server.address('http')}/v1"

        async def post(path: str, **body: Any) -> Any:
            async with http.post(f"{url}{path}", json=body) as response:
                assert response.status == 200
                return await response.json()

        await post("/accounts", account="acme", credit_nano_usd="250000000")
        key = (await post("/keys", account="acme"))["secret"]
        assert [await ask(server, key) for _ in range(2)] == [200, 402]
        async with http.get(f"{url}/ledger:verify") as response:
            assert (await response.json())["findings"] == []
        spec = {"model": MODEL, "messages": [{"role": "ROLE_USER", "content": [{"text": "a"}]}]}
        nameless = {"spec": {**spec, "tools": [{}]}}
        async with http.post(f"{url}/operations:explain", json=nameless) as response:
            assert (await response.json())["error"]["param"] == "spec.tools[0].name"
        async with http.get(f"{public}/accounts") as response:
            assert response.status == 404
    assert TOKEN not in server.stdout + server.log


@pytest.mark.parametrize("arguments", [("--ops", "127.0.0.1:0"), ("--ops-rest", "127.0.0.1:0")])
@pytest.mark.parametrize("token", ["", "short", "with a space" * 4])
async def test_no_operators_listener_without_a_token(
    tmp_path: Path, arguments: tuple[str, ...], token: str
) -> None:
    """A server that would serve operators' methods to everybody does not start."""
    (tmp_path / "pomogator.toml").write_text("")
    shell = Shell(tmp_path, {"POMOGATOR_OPS_TOKEN": token})

    said = await shell.run("serve", "--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                           "--metrics", "", *arguments, code=1)  # fmt: skip

    assert "POMOGATOR_OPS_TOKEN" in said
    assert not token or token not in said
