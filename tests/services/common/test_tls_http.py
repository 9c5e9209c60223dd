from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from gateway.config import EdgeConfig
from gateway.rpc.service_channel import open_channel
from gateway.server import serving_rest
from services.common.tls import ListenerTls, TargetTls

NAME = "pomogator.example"


def issue(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    """Write a new certificate and its key; an earlier pair is replaced."""
    issued = authority.issue_cert(NAME)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def listener(certificate: Path, key: Path, client_ca: Path | None = None) -> ListenerTls:
    """A listener with these files."""
    return ListenerTls(certificate=certificate, key=key, client_ca=client_ca)


async def status(address: str, authority: trustme.CA) -> int:
    """The status of `/healthz` for a client that trusts only this authority."""
    trust = ssl.create_default_context()
    trust.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    url = f"https://{address}/healthz"
    async with (
        aiohttp.ClientSession() as http,
        http.get(url, ssl=trust, server_hostname=NAME) as answer,
    ):
        return answer.status


async def test_new_connections_get_the_replaced_certificate(tmp_path: Path) -> None:
    """A half-written file changes nothing."""
    first, second = trustme.CA(), trustme.CA()
    tls = listener(*issue(first, tmp_path)).http_context()
    async with (
        open_channel("127.0.0.1:9") as nowhere,
        serving_rest(nowhere, "127.0.0.1:0", EdgeConfig(), tls=tls) as address,
    ):
        assert await status(address, first) == 200
        (tmp_path / "tls.crt").write_bytes(b"-----BEGIN CERT")
        assert await status(address, first) == 200
        issue(second, tmp_path)
        assert await status(address, second) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(address, first)


async def test_a_client_without_tls_gets_no_answer(tmp_path: Path) -> None:
    """The listener speaks no plain text."""
    tls = listener(*issue(trustme.CA(), tmp_path)).http_context()
    async with (
        open_channel("127.0.0.1:9") as nowhere,
        serving_rest(nowhere, "127.0.0.1:0", EdgeConfig(), tls=tls) as address,
        aiohttp.ClientSession() as http,
    ):
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://{address}/healthz")


def test_a_wrong_pair_is_refused_at_the_start(tmp_path: Path) -> None:
    """A key of another certificate is an error before anything is served."""
    certificate, key = issue(trustme.CA(), tmp_path)
    other = trustme.CA().issue_cert(NAME)
    key.write_bytes(other.private_key_pem.bytes())

    with pytest.raises(OSError, match=r"tls.crt and .*tls.key are no certificate and its key"):
        listener(certificate, key).http_context()


def client(name: str, ca: trustme.CA, server: trustme.CA) -> ssl.SSLContext:
    """A client with a certificate of one authority that trusts another one's servers."""
    issued = ca.issue_cert(name)
    context = ssl.create_default_context(cadata=server.cert_pem.bytes().decode())
    issued.configure_cert(context)
    return context


async def test_clients_need_a_certificate_of_the_authority(tmp_path: Path) -> None:
    """A replaced authority holds from the next connection on."""
    server, first, second = trustme.CA(), trustme.CA(), trustme.CA()
    authority = tmp_path / "clients.crt"
    authority.write_bytes(first.cert_pem.bytes())
    tls = listener(*issue(server, tmp_path), authority).http_context()
    async with (
        open_channel("127.0.0.1:9") as nowhere,
        serving_rest(nowhere, "127.0.0.1:0", EdgeConfig(), tls=tls) as address,
    ):

        async def ask(trust: ssl.SSLContext) -> int:
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"https://{address}/healthz", ssl=trust, server_hostname=NAME) as answer,
            ):
                return answer.status

        mine, new = [client("ops", each, server) for each in (first, second)]
        nobody = ssl.create_default_context(cadata=server.cert_pem.bytes().decode())
        assert await ask(mine) == 200
        for other in (new, nobody):
            with pytest.raises(aiohttp.ClientError):
                await ask(other)
        authority.write_bytes(second.cert_pem.bytes())
        assert await ask(new) == 200
        with pytest.raises(aiohttp.ClientError):
            await ask(mine)


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----"])
def test_unusable_files_are_named(tmp_path: Path, missing: str, content: bytes | None) -> None:
    """For listeners and for channels."""
    authority = trustme.CA()
    certificate, key = issue(authority, tmp_path)
    ca = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(ca)
    (tmp_path / missing).unlink()
    if content is not None:
        (tmp_path / missing).write_bytes(content)

    for read in (
        listener(certificate, key, ca).http_context,
        TargetTls(ca=ca, certificate=certificate, key=key).credentials,
    ):
        with pytest.raises(OSError) as told:  # noqa: PT011 - the name is in one of two places
            read()
        assert missing in f"{told.value.filename} {told.value}"
