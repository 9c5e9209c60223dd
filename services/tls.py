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
        """What is in the files. Raises OSError and ssl.SSLError where it cannot be used."""
        # The same check that OpenSSL would make: the key is the certificate's.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        clients = self.client_ca.read_bytes() if self.client_ca else None
        if clients is not None:
            context.load_verify_locations(cadata=clients.decode("ascii", "replace"))
        return Identity(self.certificate.read_bytes(), self.key.read_bytes(), clients)


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
    """Credentials that follow the files. Raises OSError and ssl.SSLError as `TlsFiles.read`."""
    current = _Current(files)
    return grpc.dynamic_ssl_server_credentials(
        current.identity.for_grpc(),
        current.changed,  # type: ignore[arg-type]  # None: as before, says the documentation
        require_client_authentication=files.client_ca is not None,
    )


class _Current:
    """What the last handshake used. gRPC asks from threads of its own, before each."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self.identity = files.read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new identity, if there is one."""
        try:
            identity = self._files.read()
        except (OSError, ssl.SSLError) as error:
            log.warning("tls.not_reloaded", extra={"error": type(error).__name__})
            return None
        if identity == self.identity:
            return None
        self.identity = identity
        log.info("tls.reloaded", extra={"certificate": str(self._files.certificate)})
        return identity.for_grpc()
