"""TLS for the edge: certificates from files, taken anew when these change.

Whoever replaces the files need not restart anything: new connections have the new
certificate. Files that do not fit together, such as half of a pair that is being
written, change nothing.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

_log = logging.getLogger(__name__)

Version = tuple[tuple[int, int], ...]
"""Tells one state of files from another."""


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
        """What opens a channel. Raises OSError, which names the files, where they are no use."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
        ca = self.ca.read_bytes()
        _trust(context, self.ca)
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(ca)
        certificate, key = self.certificate.read_bytes(), self.key.read_bytes()
        _present(context, self.certificate, self.key)
        return grpc.ssl_channel_credentials(ca, key, certificate)

    @property
    def version(self) -> Version:
        """Another one after a file was replaced. Raises OSError where one is missing."""
        return _version(*(path for path in (self.ca, self.certificate, self.key) if path))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """Who a listener is, and whom it lets in."""

    certificate: Path
    """The chain in PEM, the listener's own certificate first."""
    key: Path
    """Its private key in PEM, without a password."""
    client_ca: Path | None = None
    """Who vouches for clients. None: they need no certificate."""

    def context(self) -> ssl.SSLContext:
        """Presents what is in the files at the moment of each handshake.

        Raises OSError, which names the files, where they are no use at the start.
        """
        context = self._read()
        versions = {self._version: context}

        def choose(handshake: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
            """Called in each handshake, before a certificate is presented."""
            try:
                version = self._version
                if version not in versions:
                    latest = self._read()
                    versions.clear()
                    versions[version] = latest
                    _log.info("tls.reloaded", extra={"certificate": str(self.certificate)})
            except OSError as error:
                _log.warning("tls.not_reloaded", extra={"reason": str(error)})
            (handshake.context,) = versions.values()

        context.sni_callback = choose
        return context

    @property
    def _version(self) -> Version:
        return _version(*(path for path in (self.certificate, self.key, self.client_ca) if path))

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _present(context, self.certificate, self.key)
        if self.client_ca is not None:
            _trust(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            # A session that is taken up again would bring along an authority's word that may
            # have been withdrawn since.
            context.num_tickets = 0
        return context


def _present(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        path.read_bytes()  # OpenSSL's error would not say which of them is missing.
    try:
        # A key with a password is none, rather than a reason to ask at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        message = f"{certificate} and {key} are no certificate and its key in PEM"
        raise OSError(message) from error


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(cadata=authority.read_bytes().decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"{authority} holds no certificate in PEM") from error


def _version(*paths: Path) -> Version:
    return tuple((status.st_mtime_ns, status.st_ino) for status in (path.stat() for path in paths))
