"""The edge over TLS, with certificates that are replaced under way."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from gateway.channel import open_channel
from gateway.config import EdgeConfig
from gateway.server import serving
from gateway.tls import is_local, server_context

NAME = "pomogator.example"


def issue(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    """A certificate and its key in files; those of an earlier one are replaced."""
    issued = authority.issue_cert(NAME)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


async def status(address: str, authority: trustme.CA) -> int:
    """What `/healthz` answers to a client that trusts the authority alone."""
    trust = ssl.create_default_context()
    trust.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    url = f"https://{address}/healthz"
    async with (
        aiohttp.ClientSession() as http,
        http.get(url, ssl=trust, server_hostname=NAME) as answer,
    ):
        return answer.status


async def test_replaced_certificates(tmp_path: Path) -> None:
    """A new connection meets the new certificate; what is half written changes nothing."""
    first, second = trustme.CA(), trustme.CA()
    tls = server_context(*issue(first, tmp_path))
    async with (
        open_channel("127.0.0.1:9") as nowhere,
        serving(nowhere, "127.0.0.1:0", EdgeConfig(), tls=tls) as address,
    ):
        assert await status(address, first) == 200
        (tmp_path / "tls.crt").write_bytes(b"-----BEGIN CERT")
        assert await status(address, first) == 200
        issue(second, tmp_path)
        assert await status(address, second) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(address, first)


async def test_plain_text_is_not_spoken(tmp_path: Path) -> None:
    """A client that does not speak TLS gets no answer."""
    tls = server_context(*issue(trustme.CA(), tmp_path))
    async with (
        open_channel("127.0.0.1:9") as nowhere,
        serving(nowhere, "127.0.0.1:0", EdgeConfig(), tls=tls) as address,
        aiohttp.ClientSession() as http,
    ):
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://{address}/healthz")


def test_a_wrong_pair_is_refused_at_the_start(tmp_path: Path) -> None:
    """A key of another certificate is an error before anything is served."""
    certificate, key = issue(trustme.CA(), tmp_path)
    other = trustme.CA().issue_cert(NAME)
    key.write_bytes(other.private_key_pem.bytes())

    with pytest.raises(ssl.SSLError):
        server_context(certificate, key)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:80", True),
        ("127.8.8.8:80", True),
        ("[::1]:80", True),
        ("localhost:80", True),
        ("unix:/run/s", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
        ("localhost.example:80", False),
        (":80", False),
        ("dns:///127.0.0.1:80", True),
        ("dns:///pomogator-grpc:80", False),
    ],
)
def test_who_can_reach_an_address(address: str, local: bool) -> None:
    """Loopback and Unix sockets are this machine's alone; everything else is not."""
    assert is_local(address) is local
