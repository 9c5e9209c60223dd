"""TLS of listeners and of their clients, with certificates from files.

Replaced files (Kubernetes replaces those of mounted secrets) are read again without a restart: the
next handshake uses the new certificate. Files that do not fit together, such as a new certificate
whose key is not written yet, are not used: the previous certificate stays.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import grpc

log = logging.getLogger(__name__)

T = TypeVar("T")

FileVersion = tuple[tuple[int, int], ...]
"""Modification times and inodes of files. The version differs after a file was replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """TLS of a listener: its certificate, and the CA that must have signed its clients'."""

    certificate: Path
    """The chain in PEM, the listener's own certificate first."""
    key: Path
    """Its private key in PEM, without a password."""
    client_ca: Path | None = None
    """The CA of the clients' certificates, in PEM. None: clients need no certificate."""

    def http_context(self) -> ssl.SSLContext:
        """Return the context of an HTTP listener. Each handshake uses the current files.

        Raises OSError: the files cannot be used now. The message names them.
        """
        latest = _Reloaded(self._files, self._read_context)

        def choose(handshake: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
            """Called in each handshake, before a certificate is presented."""
            latest.reload()
            handshake.context = latest.value

        latest.value.sni_callback = choose
        return latest.value

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC listener. Each handshake uses the current files.

        Raises OSError: the files cannot be used now. The message names them.
        """
        latest = _Reloaded(self._files, self._read_configuration)

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Called before each handshake, on a thread of gRPC's."""
            return latest.value if latest.reload() else None

        return grpc.dynamic_ssl_server_credentials(
            latest.value,
            changed,  # type: ignore[arg-type]  # None: unchanged, by gRPC's documentation
            require_client_authentication=self.client_ca is not None,
        )

    @property
    def _files(self) -> Sequence[Path]:
        return [path for path in (self.certificate, self.key, self.client_ca) if path]

    def _read_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _load_pair(context, self.certificate, self.key)
        if self.client_ca is not None:
            _load_ca(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            # A resumed session would skip the check of the client's certificate against a CA that
            # was replaced since.
            context.num_tickets = 0
        return context

    def _read_configuration(self) -> grpc.ServerCertificateConfiguration:
        # gRPC's own check says neither which file is wrong nor why.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = _load_pair(context, self.certificate, self.key)
        client_ca = _load_ca(context, self.client_ca) if self.client_ca else None
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=client_ca
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTls:
    """TLS of a gRPC client: the CA of the listener, and the client's own certificate."""

    ca: Path
    """The CA of the listener's certificate, in PEM."""
    certificate: Path | None = None
    """The client's own certificate, where the listener asks for one: the chain in PEM."""
    key: Path | None = None
    """Its private key in PEM."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a channel. Raises OSError, which names an unusable file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca = _load_ca(context, self.ca)
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(ca)
        certificate, key = _load_pair(context, self.certificate, self.key)
        return grpc.ssl_channel_credentials(ca, key, certificate)

    @property
    def version(self) -> FileVersion:
        """The version of the files. Raises OSError where one is missing."""
        return _version([path for path in (self.ca, self.certificate, self.key) if path])


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTls:
    """TLS of connections to a provider: its CA, and our own certificate.

    Equal only while the files are the same, so that replaced ones are another `UpstreamTls`.
    """

    ca: Path | None = None
    """The CA of the provider's certificate, in PEM. None: the system's authorities."""
    certificate: Path | None = None
    """Our own certificate, where the provider asks for one: the chain in PEM."""
    key: Path | None = None
    """Its private key in PEM. None: the file of the certificate has it."""
    version: FileVersion = ()
    """The version of the files. `of_files` sets it."""

    @classmethod
    def of_files(cls, ca: Path | None, certificate: Path | None, key: Path | None) -> UpstreamTls:
        """Return the TLS with the files as they are now. Raises OSError, which names a bad one."""
        files = [path for path in (ca, certificate, key) if path]
        made = cls(ca=ca, certificate=certificate, key=key, version=_version(files))
        made.context()
        return made

    def context(self) -> ssl.SSLContext:
        """Return the context of connections. Raises OSError, which names an unusable file."""
        context = upstream_context(self.ca)
        if self.certificate is not None:
            _load_pair(context, self.certificate, self.key or self.certificate)
        return context


def upstream_context(ca: Path | None = None) -> ssl.SSLContext:
    """Return a context that verifies servers by the system's authorities, or by `ca` alone.

    Verification cannot be turned off. OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR. Raises OSError.
    """
    context = (
        ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    if ca is not None:
        _load_ca(context, ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_authorities(env: Mapping[str, str]) -> None:
    """Raise ValueError if SSL_CERT_FILE names no certificates.

    OpenSSL ignores such a file: each connection would fail later, with an error of verification.
    """
    if authorities := env.get("SSL_CERT_FILE"):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
        except ssl.SSLError:
            raise ValueError(f"SSL_CERT_FILE: {authorities} holds no certificate in PEM") from None
        except OSError as error:
            raise ValueError(f"SSL_CERT_FILE: {authorities}: {error.strerror}") from None


class _Reloaded(Generic[T]):
    """Value that is read from files, and read again after one of them was replaced."""

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        """Raises OSError as `make` does."""
        self._files = files
        self._make = make
        self._version = _version(files)
        self.value = make()

    def reload(self) -> bool:
        """Make the value again if a file was replaced, and return whether it was made.

        If that fails, the previous value stays, and the next call tries again.
        """
        try:
            version = _version(self._files)
            if version == self._version:
                return False
            self.value = self._make()
        except OSError as error:
            log.warning("certificate.refused", extra={"reason": str(error)})
            return False
        self._version = version
        log.info("certificate.reloaded", extra={"certificate": str(self._files[0])})
        return True


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> tuple[bytes, bytes]:
    # OpenSSL's error would not say which file is missing.
    content = certificate.read_bytes(), key.read_bytes()
    try:
        # The password keeps OpenSSL from asking for one at the terminal: it fails instead.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        message = f"{certificate} and {key} are no certificate and its key in PEM"
        raise OSError(message) from error
    return content


def _load_ca(context: ssl.SSLContext, ca: Path) -> bytes:
    content = ca.read_bytes()
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"{ca} holds no certificate in PEM") from error
    return content


def _version(files: Sequence[Path]) -> FileVersion:
    return tuple((status.st_mtime_ns, status.st_ino) for status in map(Path.stat, files))
