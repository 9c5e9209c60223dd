"""Links that would leave this machine in plain text.

Links of callers, operators and edges to our listeners are refused without the operator's consent.
Links to programs of other owners (database, Redis, providers) are only logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from services.common.addresses import is_local, join_address
from services.config import Config
from services.serving.options import ServeOptions
from services.storage.postgres_url import read_hosts, split_url

__all__ = ["log_plain_text", "plain_listeners", "unencrypted"]

log = logging.getLogger(__name__)

_SSL_MODES = frozenset({"require", "verify-ca", "verify-full"})
"""PostgreSQL's modes that fail rather than continue without encryption."""


def plain_listeners(options: ServeOptions) -> Mapping[str, str]:
    """Addresses of the listeners that do not encrypt, by option. Some may be empty."""
    plain = {"metrics": options.metrics or ""}
    if options.tls.certificate:
        return plain
    rest = {} if options.grpc_only else {"rest": options.rest}
    operators = {
        "ops": options.ops,
        "ops-rest": options.ops_rest,
        "console": options.console,
    }
    return plain | rest | {"grpc": options.grpc} | operators


def log_plain_text(config: Config) -> None:
    """Log each link on which a password, a provider's key or a prompt leaves unencrypted."""
    for link, remedy in unencrypted(config):
        log.warning("link.unencrypted", extra={"link": link, "remedy": remedy})


def unencrypted(config: Config) -> Iterator[tuple[str, str]]:
    """Unencrypted links to other machines: the configuration key, and how to encrypt it."""
    state = config.state
    for key, secret in (
        ("state.database_url", state.database_url),
        ("state.database_direct_url", state.database_direct_url),
    ):
        if _database_is_plain(secret.reveal()):
            yield key, "?sslmode=verify-full&sslrootcert=system"
    redis = urlsplit(config.state.redis_url.reveal())
    if redis.scheme == "redis" and not _is_here(redis.hostname):
        yield "state.redis_url", "rediss://"
    for channel in config.channels:
        url = urlsplit(channel.base_url)
        if url.scheme == "http" and not _is_here(url.hostname):
            yield f"channels ({channel.name}).base_url", "https://"


def _database_is_plain(text: str) -> bool:
    """PostgreSQL's default prefers encryption, which a man in the middle can refuse."""
    url, authority = split_url(text)
    query = parse_qs(url.query)
    modes = query.get("sslmode") or query.get("ssl") or [""]
    if not text or modes[-1] in _SSL_MODES:
        return False
    hosts = (query.get("host") or [authority.rpartition("@")[2]])[-1]
    try:
        return not all(host.startswith("/") or _is_here(host) for host, _ in read_hosts(hosts))
    except ValueError:
        return False  # A port that is no number: the start refuses the URL.


def _is_here(host: str | None) -> bool:
    return not host or is_local(join_address(host, 0))
