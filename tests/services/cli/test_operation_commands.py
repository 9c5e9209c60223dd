"""Commands about the running service."""

from __future__ import annotations

import json
import ssl
from functools import partial
from pathlib import Path

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.chat.v1 import content_pb2 as content

from services.config import load
from services.providers.registry import DIALECTS
from services.rpc.listener import listening
from services.serving.server import open_service
from tests.services.cli.conftest import Shell
from tests.stand.certificates import Certificates
from tests.stand.upstream import FakeUpstream


def test_explains_without_a_server(shell: Shell) -> None:
    """Candidates and requests follow from the configuration alone."""
    said = shell.run("explain", "--model", "a/one")

    assert "1. somewhere for a/one: priority 0, weight 1 x 1.00, key 0, breaker closed" in said
    assert "POST http://127.0.0.1:9/v1/chat/completions" in said
    assert '"model":"one"' in said


def test_explains_a_file(shell: Shell, tmp_path: Path) -> None:
    """The file is a body of the REST API; `--model` overrides its model."""
    request = tmp_path / "request.json"
    asked = {"model": "b/two", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7}
    request.write_text(json.dumps(asked))

    assert "at most 7 completion tokens" in shell.run("explain", "--file", str(request))
    said = shell.run("explain", "--file", str(request), "--model", "a/one")
    assert '"model":"one"' in said


async def test_explains_embeddings_with_and_without_a_server(shell: Shell, tmp_path: Path) -> None:
    """By the kind of the model, or by `input` in the file."""
    shell.config.write_text(
        shell.config.read_text() + '[[models]]\nname = "a/one"\nembeddings = {}\n'
    )
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"model": "a/one", "input": ["one", "two"], "dimensions": 8}))
    by_model, by_file = ("explain", "--model", "a/one"), ("explain", "--file", str(request))
    alone = [await shell.run_beside_server(*by_model), await shell.run_beside_server(*by_file)]

    config = load(shell.config, {}, dialects=DIALECTS)
    async with (
        open_service(config, shell.state, {}) as service,
        listening(service.register_operators, f"unix:{shell.state}/ops.sock", grace_s=0),
    ):
        beside = [await shell.run_beside_server(*by_model), await shell.run_beside_server(*by_file)]

    assert alone == beside
    for said in alone:
        assert "prompt tokens in 1 requests to the provider" in said
        assert "POST http://127.0.0.1:9/v1/embeddings" in said
    assert '"input":["Hello!"]' in alone[0]
    assert '"input":["one","two"]' in alone[1]
    assert '"dimensions":8' in alone[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"model": 7}', "model"),
        ('{"input": 7}', "model"),
    ],
)
def test_a_file_that_is_no_request(
    shell: Shell, tmp_path: Path, content: str, message: str
) -> None:
    """The error is one line."""
    request = tmp_path / "request.json"
    request.write_text(content)

    assert message in shell.run("explain", "--file", str(request), code=1)


def test_nothing_to_explain(shell: Shell) -> None:
    """A known model or a request is required."""
    assert "give --model" in shell.run("explain", code=1)
    assert shell.run("explain", "--model", "no/model", code=1) == (
        "pomogator: Invalid model specified: no channel serves 'no/model'; "
        "`pomogator models list` lists the names in a configuration\n"
    )


def test_no_server_to_ask(shell: Shell) -> None:
    """Commands about what only a server knows need a running one."""
    for command in (
        ("channels", "list"),
        ("channels", "disable", "somewhere", "--reason", "ill"),
        ("channels", "enable", "somewhere"),
        ("channels", "test", "somewhere"),
        ("calls", "live"),
        ("calls", "abort", "live-1", "--reason", "ill"),
        ("reload",),
    ):
        assert "no server runs" in shell.run(*command, code=1), command


async def test_commands_call_the_running_server(shell: Shell) -> None:
    """`explain` and `channels` show the server's configuration; `reload` replaces it."""
    config = load(shell.config, {}, dialects=DIALECTS)
    address = f"unix:{shell.state}/ops.sock"
    read = partial(load, shell.config, {}, dialects=DIALECTS)
    async with (
        open_service(config, shell.state, {}, read=read) as service,
        listening(service.register_operators, address, grace_s=0),
    ):
        shell.config.write_text(shell.config.read_text().replace("a/one", "a/new"))
        assert "Invalid model" in await shell.run_beside_server(
            "explain", "--model", "a/new", code=1
        )
        assert await shell.run_beside_server("reload") == "reloaded\n"
        good = shell.config.read_text()
        for faulty, problem in (
            (good.replace("base_url", "base_ulr"), "base_ulr: no such key"),
            ("", "channels: the reload would leave none; restart to serve nothing"),
        ):
            shell.config.write_text(faulty)
            refused = await shell.run_beside_server("reload", code=1)
            assert problem in refused
            assert refused.endswith("The server keeps the configuration that it has.\n")
        shell.config.write_text(good)
        head, *rows = (
            await shell.run_beside_server("channels", "list", "--model", "a/new")
        ).splitlines()
        assert head.split()[:6] == ["MODEL", "CHANNEL", "KEY", "PRIORITY", "WEIGHT", "SCORE"]
        assert [row.split() for row in rows] == [
            ["a/new", "somewhere", "0", "0", "1", "1.00", "closed", "0%", "-", "-", "-"]
        ]
        assert '"model":"one"' in await shell.run_beside_server("explain", "--model", "a/new")


async def test_the_last_failure_of_a_channel_is_shown(shell: Shell, tmp_path: Path) -> None:
    """With the words of TLS for a certificate that is not trusted, and its time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Certificates(tmp_path, "127.0.0.1").issue("server"))
    address = f"unix:{shell.state}/ops.sock"
    async with FakeUpstream(tls=context) as upstream:
        text = shell.config.read_text().replace("http://127.0.0.1:9/v1", upstream.url)
        shell.config.write_text(text)
        config = load(shell.config, {}, dialects=DIALECTS)
        async with (
            open_service(config, shell.state, {}) as service,
            listening(service.register_operators, address, grace_s=0),
            service.channel() as public,
        ):
            spec = chat.ChatCompletionSpec(model="a/one")
            spec.messages.add(role=content.ROLE_USER).content.add(text="Hi")
            call = chat_grpc.ChatCompletionServiceStub(public).CreateChatCompletion(
                chat.CreateChatCompletionRequest(spec=spec),
                metadata=(("authorization", f"Bearer {await service.key_maker.make_first()}"),),
                timeout=5,
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            rows = (
                await shell.run_beside_server("channels", "list", "--model", "a/one")
            ).splitlines()

    assert rows[0].endswith("LAST FAILURE")
    assert "UPSTREAM_UNREACHABLE (tls: " in rows[1]
    assert "certificate verify failed" in rows[1]
