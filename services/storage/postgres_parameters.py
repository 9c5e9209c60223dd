"""Parameters of a PostgreSQL URL: the values that are allowed, the files, those without an effect.

The driver names neither the parameter nor the values that it allows.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

IGNORED = frozenset(
    {
        *("channel_binding", "client_encoding", "gssdelegation", "gssencmode", "hostaddr"),
        *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
        *("load_balance_hosts", "max_protocol_version", "min_protocol_version", "replication"),
        *("require_auth", "requirepeer", "requiressl", "sslcertmode", "sslcompression"),
        *("sslcrldir", "sslkeylogfile", "sslsni", "tcp_user_timeout"),
    }
)
"""Parameters of libpq that have no effect here. Dead peers are found by timeouts and a heartbeat
instead of TCP keep-alive."""

DEMANDS: Mapping[str, frozenset[str]] = {
    "channel_binding": frozenset({"require"}),
    "gssencmode": frozenset({"require"}),
    "require_auth": frozenset(),
    "requirepeer": frozenset(),
    "sslcertmode": frozenset({"require"}),
}
"""Ignored parameters that ask for more security than the driver has, with the values that do. No
value: all. `sslmode=verify-full` gives the protection against a machine in the middle."""

TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
VERIFYING = ("require", "verify-ca", "verify-full")

VALUES: Mapping[str, tuple[str, ...]] = {
    "gsslib": ("gssapi", "sspi"),
    "ssl_max_protocol_version": TLS_VERSIONS,
    "ssl_min_protocol_version": TLS_VERSIONS,
    "sslmode": ("disable", "allow", "prefer", *VERIFYING),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "primary", "read-write"),
}
"""Values of parameters that allow only some. Of the targets, the others have servers that accept no
writes."""

FILES = ("sslcert", "sslkey", "sslcrl", "sslrootcert")
"""Parameters that name a file."""

SYSTEM = "system"
"""Value of `sslrootcert` for the certificates of the machine."""


class UrlError(ValueError):
    """The URL is not valid. The message names the parameter, and holds no password."""


def check_parameters(query: Mapping[str, str]) -> None:
    """Raise UrlError if a value is not allowed, or a file cannot be read."""
    for name, allowed in VALUES.items():
        given = query.get(name, "")
        if given and given not in allowed:
            raise UrlError(f"{name}: must be {' or '.join(allowed)}, not {given!r}")
    if query.get("sslnegotiation") == "direct" and query.get("sslmode") not in VERIFYING:
        raise UrlError(f"sslnegotiation: direct needs sslmode={' or '.join(VERIFYING)}")
    mode = query.get("sslmode", "")
    if mode in VERIFYING[1:] and not (query.get("sslrootcert") or _has_default_authority()):
        raise UrlError(f"sslmode: {mode} needs sslrootcert=FILE or sslrootcert={SYSTEM}")
    if mode == "disable":
        return
    for name in FILES:
        if given := query.get(name, ""):
            _check_file(name, given)


def read_timeout(text: str) -> float:
    """Return the seconds of `connect_timeout`, 0 for the default. Raise UrlError."""
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UrlError(f"connect_timeout: must be a number of seconds, 0 or more, not {text!r}")
    return max(0.0, seconds)  # libpq takes a negative number for 0.


def drop_ignored(query: dict[str, str]) -> tuple[str, ...]:
    """Remove parameters without an effect, and return those of them that ask for security."""
    dropped = {name: query.pop(name) for name in sorted(IGNORED & query.keys())}
    return tuple(
        f"{name}={value}"
        for name, value in dropped.items()
        if name in DEMANDS and (not DEMANDS[name] or value in DEMANDS[name])
    )


def _has_default_authority() -> bool:
    """Return whether the driver finds certificates of authorities where the URL names none."""
    default = "~/.postgresql/root.crt"
    return bool(os.environ.get("PGSSLROOTCERT")) or Path(default).expanduser().exists()


def _check_file(name: str, path: str) -> None:
    if name == "sslrootcert" and path == SYSTEM:
        return
    try:
        Path(path).open("rb").close()
        if name == "sslrootcert":
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise UrlError(f"{name}: {path}: is no certificate in PEM") from None
    except OSError as error:
        raise UrlError(f"{name}: {path}: {error.strerror}") from None
