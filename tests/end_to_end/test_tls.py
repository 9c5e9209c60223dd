"""TLS from the client to the service, between processes; plain text only where it is asked for."""

from __future__ import annotations

import re
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme

from tests.stand.certificates import Certificates
from tests.stand.configuration import configuration
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.shell import Shell, refused_start
from tests.stand.upstream import FakeUpstream, json_answer

ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


async def test_edge_and_service_use_mutual_tls(tmp_path: Path) -> None:
    """HTTPS to the edge, mutual TLS to the service; another edge is refused."""
    files = Certificates(tmp_path, "127.0.0.1")
    server, server_key = files.issue("server")
    edge, edge_key = files.issue("edge")
    stranger, stranger_key = files.issue("stranger", trustme.CA())
    trust = ssl.create_default_context(cafile=files.ca)
    shown = ("--tls-cert", server, "--tls-key", server_key)
    (tmp_path / "service").mkdir()
    (tmp_path / "edge").mkdir()
    async with (
        FakeUpstream() as upstream,
        running_server(
            *(tmp_path / "service", configuration(upstream.url), *shown),
            *("--tls-client-ca", files.ca),
            only="grpc",
        ) as service,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {service.key}"}) as http,
    ):
        upstream.play([json_answer(ANSWER)])
        target = ("--target", await service.tcp_address(), "--target-ca", files.ca)
        for certificate, key, expected in ((edge, edge_key, 200), (stranger, stranger_key, 503)):
            mine = ("--target-cert", certificate, "--target-key", key)
            async with running_server(
                tmp_path / "edge", "", *shown, *target, *mine, only="rest"
            ) as front:
                url = f"https://{await front.address('http')}/v1/chat/completions"
                body = {"model": "house/model", "messages": [{"role": "user", "content": "Hi"}]}
                async with http.post(url, json=body, ssl=trust) as answer:
                    assert answer.status == expected, await answer.text()


async def test_sighup_reloads_certificates_and_client_names(tmp_path: Path) -> None:
    """On SIGHUP the service follows its configuration, and the edge its certificate files."""
    files = Certificates(tmp_path, "127.0.0.1")
    server, server_key = files.issue("server")
    edge, edge_key = files.issue("edge", None, "edge.svc")
    for folder in ("service", "edge"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "service" / "pomogator.toml"
    async with FakeUpstream() as upstream, aiohttp.ClientSession() as http:
        upstream.play([json_answer(ANSWER)])

        def config(name: str) -> str:
            return f'client_certificates = {{ "*" = ["{name}"] }}' + configuration(upstream.url)

        async with (
            running_server(
                *(tmp_path / "service", config("edge.svc"), "--tls-client-ca", files.ca),
                *("--tls-cert", server, "--tls-key", server_key),
                only="grpc",
            ) as service,
            running_server(
                *(tmp_path / "edge", "", "--target", await service.tcp_address()),
                *("--target-ca", files.ca, "--target-cert", edge, "--target-key", edge_key),
                only="rest",
            ) as front,
        ):
            url = f"http://{await front.address('http')}"
            body = {"model": "house/model", "messages": [{"role": "user", "content": "Hi"}]}
            headers = {"Authorization": f"Bearer {service.key}"}

            async def statuses() -> tuple[int, int]:
                path = f"{url}/v1/chat/completions"
                async with http.post(path, json=body, headers=headers) as answer:
                    await answer.read()
                async with http.get(f"{url}/readyz") as ready:
                    return answer.status, ready.status

            assert await statuses() == (200, 200)

            path.write_text(config("other.svc"))
            service.send_signal(signal.SIGHUP)
            await service.event("config.reloaded")
            # An edge that may not call takes no part: its users are not told that they may not.
            assert await statuses() == (403, 503)
            refused = await service.event("client.refused")
            assert refused["names"] == ["edge.svc"]

            files.issue("edge", None, "other.svc")
            front.send_signal(signal.SIGHUP)
            await front.event("certificate.reloaded")
            assert await statuses() == (200, 200)

            path.write_text(config("*.svc"))
            service.send_signal(signal.SIGHUP)
            await service.event("config.refused")
            assert await statuses() == (200, 200)


@dataclass(frozen=True, slots=True)
class Operated:
    """A server whose operators' listeners are on TCP."""

    server: Server
    files: Certificates
    shell: Shell
    token: str

    def certificate(self, name: str) -> tuple[str, ...]:
        """Flags that present the certificate of `name`.svc."""
        certificate, key = self.files.issue(name, None, f"{name}.svc")
        return (
            "--ops-ca",
            str(self.files.ca),
            "--ops-cert",
            str(certificate),
            "--ops-key",
            str(key),
        )


@pytest.fixture
async def operated(tmp_path: Path) -> AsyncIterator[Operated]:
    """A server whose key methods are for two names, and those of accounts for one of them."""
    files = Certificates(tmp_path, "127.0.0.1")
    server, server_key = files.issue("server")
    token = secrets.token_hex(16)
    clients = """
[client_certificates]
"pomogator.accounts.v1.KeyService/*" = ["admin.svc", "maker.svc"]
"pomogator.accounts.v1.AccountService/*" = ["admin.svc"]
"""
    async with running_server(
        *(tmp_path, configuration("http://127.0.0.1:9") + clients),
        *("--tls-cert", server, "--tls-key", server_key, "--tls-client-ca", files.ca),
        *("--ops", "127.0.0.1:0", "--ops-rest", "127.0.0.1:0"),
        env={"POMOGATOR_OPS_TOKEN": token},
    ) as running:
        # The operators' listener is the first.
        ops = {"POMOGATOR_OPS": await running.address("grpc"), "POMOGATOR_OPS_TOKEN": token}
        yield Operated(running, files, Shell(tmp_path, ops), token)


async def test_operators_over_grpc_need_certificate_and_token(
    operated: Operated, tmp_path: Path
) -> None:
    """A certificate of another name, or no token, is refused with the reason."""
    admin = operated.certificate("admin")
    ops = {"POMOGATOR_OPS": await operated.server.address("grpc"), "POMOGATOR_OPS_TOKEN": ""}

    assert "default" in await operated.shell.run("keys", "list", *admin)
    refused = await operated.shell.run("keys", "list", *operated.certificate("guest"), code=1)
    assert "may call pomogator.accounts.v1.KeyService/ListKeys" in refused
    refused = await Shell(tmp_path, ops).run("keys", "list", *admin, code=1)
    assert "operators' token" in refused


async def test_a_key_is_shown_to_one_who_may_not_read_its_account(operated: Operated) -> None:
    """Its secret is shown once: what fails after its creation does not lose it."""
    maker = operated.certificate("maker")

    said = await operated.shell.run("keys", "create", "--account", "acme", *maker, code=1)

    assert re.search(r"^sk-pg-\w+$", said, re.MULTILINE)
    assert "may call pomogator.accounts.v1.AccountService/GetAccount" in said


@pytest.mark.nightly
@pytest.mark.parametrize("trusts", [False, True])
async def test_operators_without_certificate_get_no_answer(
    operated: Operated, trusts: bool
) -> None:
    """The command gives up after its timeout, whether it trusts the server or not."""
    flags = ("--ops-ca", str(operated.files.ca)) if trusts else ()

    assert "no server answers" in await operated.shell.run("keys", "list", *flags, code=1)


async def test_operators_over_rest_need_certificate_and_token(operated: Operated) -> None:
    """Without a certificate there is no connection; with another token there is 401."""
    url = f"https://{await operated.server.address('operators-http')}/v1/accounts"
    trust = ssl.create_default_context(cafile=operated.files.ca)
    headers = {"Authorization": f"Bearer {operated.token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        with pytest.raises(aiohttp.ClientError):
            await http.get(url, ssl=trust)
        trust.load_cert_chain(*operated.files.issue("admin", None, "admin.svc"))
        async with http.get(url, ssl=trust) as answer:
            assert answer.status == 200
        async with http.get(url, ssl=trust, headers={"Authorization": "Bearer x"}) as answer:
            assert answer.status == 401


async def refusal(
    folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> str:
    """The one line of a server that refuses to start."""
    said = await refused_start(folder, *arguments, env=env)
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--rest", "0.0.0.0:0"), "rest"),
        (("--grpc", "[::]:0"), "grpc"),
        (("--ops", "0.0.0.0:0"), "ops"),
        (("--ops-rest", "0.0.0.0:0"), "ops-rest"),
        (("--metrics", "0.0.0.0:0"), "metrics"),
        (("--only", "rest", "--target", "dns:///pomogator-grpc:50051"), "target"),
        (("--only", "rest", "--target", "ipv4:127.0.0.1:1,10.0.0.1:1"), "target"),
        # The flag allows the named links alone.
        (("--grpc", "0.0.0.0:0", "--insecure", "rest,metrics"), "grpc"),
    ],
)
async def test_plain_text_beyond_loopback_is_refused_by_name(
    tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    """The server does not start, and the message names the link."""
    env = {"POMOGATOR_OPS_TOKEN": "0" * 32}
    said = await refusal(tmp_path, *arguments, env=env)

    assert said.startswith(f"pomogator: --{name} ")
    assert f"--insecure {name}" in said


async def test_client_names_need_a_client_authority(tmp_path: Path) -> None:
    """A table of client names has no effect where clients show no certificate."""
    (tmp_path / "pomogator.toml").write_text('client_certificates = { "*" = ["a.svc"] }')

    said = await refusal(tmp_path, "--config", tmp_path / "pomogator.toml")

    assert "client_certificates: callers are known only with --tls-client-ca" in said


async def test_insecure_allows_plain_text_and_logs_it(tmp_path: Path) -> None:
    """By name, or all at once; plain text to other programs is logged."""
    config = configuration("http://provider.example/v1")
    arguments = ("--rest", "0.0.0.0:0", "--metrics", "0.0.0.0:0", "--insecure", "metrics,rest")
    async with running_server(tmp_path, config, *arguments) as server:
        told = await server.event("link.unencrypted")
        assert told["link"] == "channels (house).base_url"
        port = (await server.address("metrics")).rpartition(":")[2]
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
            http.get("/readyz") as ready,
        ):
            assert ready.status == 200
