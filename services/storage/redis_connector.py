"""URL of a Redis server, the connections to it, and the reasons of their failures."""

from __future__ import annotations

import os
import re
import ssl
from urllib.parse import urlsplit

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.common.addresses import join_address
from services.storage.base import StateError

CONNECT_TIMEOUT_S = 2.0
"""Timeout of connecting. Only the start of the service waits for it."""

PORT = 6379

WRONG_NUMBER = "DB index"
"""Beginning of the server's words for a database that it does not have."""

FORM = "redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], rediss://… with TLS, or unix://…"
"""Form of a URL."""


def connector(url: str) -> ConnectionPool:
    """Return the pool of a URL, from which a connection can be made. Raise StateError."""
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        _check_number(url)
        pool.make_connection()  # type: ignore[no-untyped-call]
    except ValueError:  # Its text may show a part of the password.
        raise StateError(f"state.redis_url: must be {FORM}") from None
    except TypeError as error:
        name = re.search(r"keyword argument '(\w+)'", str(error))
        raise StateError(f"state.redis_url: unknown parameter {name and name[1]}") from None
    except RedisError as error:
        raise StateError(f"state.redis_url: {error}") from None
    return pool


def address_of(pool: ConnectionPool) -> str:
    """Return the address that the URL names, without a login."""
    given = pool.connection_kwargs
    number = f"/{given['db']}" if given.get("db") else ""
    if "path" in given:
        return f"unix:{given['path']}{number}"
    return join_address(given.get("host") or "localhost", given.get("port") or PORT) + number


def _check_number(url: str) -> None:
    """Raise ValueError if the path is no number of a database, which the driver would ignore."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and parts.path.strip("/"):
        int(parts.path.strip("/"))


def describe(error: Exception) -> tuple[str, bool]:
    """Return the reason of a failure, and whether it stays until an operator mends it."""
    text, cause = str(error), error.__context__
    if isinstance(error, AuthenticationError | NoPermissionError):
        return f"{type(error).__name__}: {text}", True
    if isinstance(error, ResponseError) and text.lower().startswith("unknown command"):
        return "the server runs no scripts; a Sentinel has no limits: name the master", True
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time", False
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: certificate verify failed: {cause.verify_message}", True
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror), False
    return text or type(error).__name__, text.startswith(WRONG_NUMBER)
