"""TLS for the edge: to its clients, with certificates that may be replaced, and to the service."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTls:
    """How the edge and the service know each other."""

    ca: Path
    """Who vouches for the service."""
    certificate: Path | None = None
    """Who the edge is, where the service asks: the chain in PEM."""
    key: Path | None = None
    """Its private key in PEM."""

    def credentials(self) -> grpc.ChannelCredentials:
        """What opens a channel. Raises OSError where a file cannot be read."""
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(),
            self.key.read_bytes() if self.key else None,
            self.certificate.read_bytes() if self.certificate else None,
        )


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Presents the certificate, and after it was replaced, to new connections, the new one.

    Files that do not fit together, such as half of a pair that is being written, change
    nothing. Raises OSError and ssl.SSLError where the files cannot be used at the start.
    """
    context = _read(certificate, key)
    versions = {_version(certificate, key): context}

    def choose(handshake: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        """Called in each handshake, before a certificate is presented."""
        try:
            version = _version(certificate, key)
            if version not in versions:
                latest = _read(certificate, key)
                versions.clear()
                versions[version] = latest
                _log.info("tls.reloaded", extra={"certificate": str(certificate)})
        except (OSError, ssl.SSLError) as error:
            _log.warning("tls.not_reloaded", extra={"error": type(error).__name__})
        (handshake.context,) = versions.values()

    context.sni_callback = choose
    return context


def is_local(address: str) -> bool:
    """Whether what is said at `HOST:PORT` or `unix:PATH` stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].rpartition("/")[2].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def _version(*paths: Path) -> tuple[tuple[int, int], ...]:
    """Tells one state of the files from another, without reading them."""
    return tuple((status.st_mtime_ns, status.st_ino) for status in (path.stat() for path in paths))
