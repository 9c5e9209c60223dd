"""TLS for the gRPC listeners: certificates from files, taken anew when these change.

Whoever replaces the files (Kubernetes does, in mounted secrets) need not restart anything:
the next handshake has the new certificate. Files that do not fit together, such as half of
a pair that is being written, change nothing.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Who a listener is, and whom it lets in."""

    certificate: Path
    """The chain in PEM, the listener's own certificate first."""
    key: Path
    """Its private key in PEM, without a password."""
    client_ca: Path | None = None
    """Who vouches for clients. None: they need no certificate."""

    def read(self) -> Identity:
        """What is in the files. Raises OSError, which names them, where it cannot be used."""
        certificate, key = self.certificate.read_bytes(), self.key.read_bytes()
        clients = self.client_ca.read_bytes() if self.client_ca else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # The same check that gRPC would make: the key is the certificate's. A key with a
            # password is none, rather than a reason to ask at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            message = f"{self.certificate} and {self.key} are no certificate and its key in PEM"
            raise OSError(message) from error
        if clients is not None:
            try:
                context.load_verify_locations(cadata=clients.decode("ascii", "replace"))
            except (ssl.SSLError, ValueError) as error:
                raise OSError(f"{self.client_ca} holds no certificate in PEM") from error
        return Identity(certificate, key, clients)


@dataclass(frozen=True, slots=True)
class Identity:
    """What was read from the files."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        return "***"

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        """The same, as gRPC takes it."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.client_ca
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files. Raises OSError as `TlsFiles.read`."""
    current = _Current(files)
    return grpc.dynamic_ssl_server_credentials(
        current.identity.for_grpc(),
        current.changed,  # type: ignore[arg-type]  # None: as before, says the documentation
        require_client_authentication=files.client_ca is not None,
    )


def channel_credentials(
    ca: Path, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials:
    """What opens a channel to a listener of ours. Raises OSError, which names the file."""
    if certificate is None or key is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    shown = TlsFiles(certificate=certificate, key=key, client_ca=ca).read()
    return grpc.ssl_channel_credentials(shown.client_ca, shown.key, shown.certificate)


class _Current:
    """What the last handshake used. gRPC asks from threads of its own, before each."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self.identity = files.read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new identity, if there is one."""
        try:
            identity = self._files.read()
        except OSError as error:
            log.warning("tls.not_reloaded", extra={"reason": str(error)})
            return None
        if identity == self.identity:
            return None
        self.identity = identity
        log.info("tls.reloaded", extra={"certificate": str(self._files.certificate)})
        return identity.for_grpc()
