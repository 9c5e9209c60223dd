"""Commands about channels, calls in flight and the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.chat.v1 import content_pb2 as content

from services.config import load
from services.providers.registry import DIALECTS
from services.rpc.listener import listening
from services.serving.server import open_service
from services.serving.service import Service
from tests.services.cli.conftest import Shell
from tests.stand.held_provider import HeldProvider
from tests.stand.upstream import STALL, FakeUpstream, Script, json_answer

PRICE = """
[[models]]
name = "a/one"
request_usd = 0.001
"""


@asynccontextmanager
async def serving(shell: Shell, *scripts: Script | HeldProvider) -> AsyncIterator[Service]:
    """Serve with a provider that plays these scripts."""
    async with FakeUpstream() as upstream:
        upstream.play(*scripts)
        text = shell.config.read_text().replace("http://127.0.0.1:9/v1", upstream.url)
        shell.config.write_text(text + PRICE)
        config = load(shell.config, {}, dialects=DIALECTS)
        async with (
            open_service(config, shell.state, {}) as service,
            listening(service.register_operators, f"unix:{shell.state}/ops.sock", grace_s=0),
        ):
            yield service


async def test_a_channel_is_disabled_enabled_and_tested(shell: Shell) -> None:
    """The list shows it; the audit log has all of it, newest first."""
    run = shell.run_beside_server
    async with serving(shell, HeldProvider()):
        off = ("channels", "disable", "somewhere", "--reason", "bill", "--until", "2100-01-01")
        assert await run(*off) == "somewhere is disabled until 2100-01-01T00:00:00Z\n"
        listed = (await run("channels", "list", "--model", "a/one")).splitlines()
        assert "bill until 2100-01-01T00:00:00Z" in listed[1]
        tested = await run("channels", "test", "somewhere", "--model", "a/one", "--timeout", "20s")
        assert tested.startswith("model:    a/one, as one in the dialect openai\n")
        assert "tokens:   9 of the prompt, 4 of the answer\n" in tested
        assert "cost:     0.001 USD, charged to no account\nOK: " in tested
        assert await run("channels", "enable", "somewhere") == "somewhere is enabled\n"
        head, *rows = (await run("audit", "list")).splitlines()
        last = (await run("audit", "list", "--limit", "1")).splitlines()
        none = (await run("audit", "list", "--account", "acme")).splitlines()

    assert head.split() == ["TIME", "BY", "METHOD", "WHAT", "ACCOUNT", "BEFORE", "AFTER"]
    assert [row.split()[2] for row in rows] == [
        f"OperationsService.{method}Channel" for method in ("Enable", "Test", "Disable")
    ]
    assert [row.split() for row in last[1:]] == [rows[0].split()]
    assert len(none) == 1


async def test_a_failed_test_of_a_channel_is_a_failed_command(shell: Shell) -> None:
    """With the provider's words, and its status."""
    refused = json_answer({"error": {"message": "Your account is empty."}}, 402)
    async with serving(shell, [refused]):
        said = await shell.run_beside_server("channels", "test", "somewhere", code=1)
        unknown = await shell.run_beside_server("channels", "test", "elsewhere", code=1)

    assert said == "pomogator: UPSTREAM_AUTH_FAILED (HTTP 402): Your account is empty.\n"
    assert unknown == "pomogator: There is no channel with this name.\n"


async def test_models_of_a_key_that_no_channel_serves_are_named(shell: Shell) -> None:
    """The name may be misspelt; the key is made all the same, and its secret is the last line."""
    key = ("keys", "create", "--account", "acme", "--models")
    async with serving(shell, []):
        made = await shell.run_beside_server(*key, "a/one,a/oen")
        misspelt = shell.remarks
        await shell.run_beside_server(*key, "a/one,a/one-thinking")
        right = shell.remarks
        await shell.run_beside_server("keys", "update", made.split()[0], "--models", "c/three")
        changed = shell.remarks
    await shell.run_beside_server(*key, "c/three")  # No server runs by now.

    unserved = "pomogator: no channel serves {}: calls are refused until one does\n"
    assert misspelt == [unserved.format("a/oen")]
    assert made.splitlines()[-1].startswith("sk-pg-")
    assert changed == [unserved.format("c/three")]
    assert right == shell.remarks == []


async def test_a_call_in_flight_is_listed_and_aborted(shell: Shell) -> None:
    """By the ID that the list shows."""
    run = shell.run_beside_server
    async with serving(shell, [STALL]) as service, service.channel() as public:
        spec = chat.ChatCompletionSpec(model="a/one")
        spec.messages.add(role=content.ROLE_USER).content.add(text="Hi")
        call = chat_grpc.ChatCompletionServiceStub(public).CreateChatCompletion(
            chat.CreateChatCompletionRequest(spec=spec),
            metadata=(("authorization", f"Bearer {await service.key_maker.make_first()}"),),
        )
        # The call is listed before its first attempt has begun.
        while "somewhere" not in (listed := await run("calls", "live")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        head, row = listed.splitlines()
        call_id, *cells = row.split()
        none = await run("calls", "live", "--channel", "elsewhere")
        said = await run("calls", "abort", call_id, "--reason", "a runaway agent")
        again = await run("calls", "abort", call_id, "--reason", "a runaway agent", code=1)
        code = await call.code()

    assert head.split()[:4] == ["CALL", "SINCE", "ACCOUNT", "KEY"]
    assert cells[3:7] == ["grpc", "a/one", "somewhere", "1"]
    assert len(none.splitlines()) == 1
    assert said.startswith(f"{call_id} is aborted: request ")
    assert again == "pomogator: This process has no such call in flight.\n"
    assert code.name == "ABORTED"


def test_the_audit_log_is_listed_without_a_server(shell: Shell) -> None:
    """Changes by commands are in it."""
    shell.run("accounts", "create", "acme", "--credit", "1")
    (_, row) = shell.run("audit", "list", "--account", "acme").splitlines()

    assert row.split()[1:3] == ["operator", "AccountService.CreateAccount"]


def test_the_audit_log_names_the_operator(shell: Shell) -> None:
    """By variable, or by option."""
    shell.run("accounts", "create", "one", POMOGATOR_OPERATOR="jane@acme")
    shell.run("accounts", "create", "two", "--operator", "joe", POMOGATOR_OPERATOR="jane@acme")
    with pytest.raises(SystemExit):
        shell.run("accounts", "list", POMOGATOR_OPERATOR="Женя")
    refused = shell.said()
    rows = shell.run("audit", "list").splitlines()[1:]

    assert [row.split()[2] for row in rows] == ["joe", "jane@acme"]
    assert "--operator: 'Женя': only printable ASCII characters" in refused
