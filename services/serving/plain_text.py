"""What would leave this machine in plain text: refused unless it was asked for, or told of.

What callers and operators send to our listeners, and an edge to its service, is ours to
refuse. What other programs take is their owners' to decide: it is in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from gateway.http.tls import is_local
from services.config import Config, ConfigError
from services.serving.options import ServeOptions

__all__ = ["is_local", "refuse_plain_text", "tell_plain_text", "unencrypted"]

log = logging.getLogger(__name__)

_SSL_MODES = frozenset({"require", "verify-ca", "verify-full"})
"""Of PostgreSQL's, those that do without a connection rather than without encryption."""


def refuse_plain_text(options: ServeOptions) -> None:
    """Keys and prompts leave the machine encrypted, or because somebody said so. ConfigError."""
    for name, address in _open_to_all(options).items():
        if address and not is_local(address) and name not in options.tls.insecure:
            raise ConfigError(
                f"--{name} {address} would speak plain text to the network: give certificates, "
                f"or --insecure {name} where something else encrypts it"
            )


def _open_to_all(options: ServeOptions) -> Mapping[str, str]:
    """Addresses where nothing is encrypted, by option."""
    plain = {"metrics": options.metrics or ""}
    if options.only == "rest" and not options.tls.target_ca:
        plain["target"] = options.target or options.grpc
    if options.tls.certificate:
        return plain
    rest = {"rest": options.rest} if options.only != "grpc" else {}
    if options.only == "rest":
        return plain | rest
    operators = {"ops": options.ops, "ops-rest": options.ops_rest}
    return plain | rest | {"grpc": options.grpc} | operators


def tell_plain_text(config: Config) -> None:
    """Logs each way on which a password, a provider's key or a prompt leaves unencrypted."""
    for link, remedy in unencrypted(config):
        log.warning("link.plain_text", extra={"link": link, "remedy": remedy})


def unencrypted(config: Config) -> Iterator[tuple[str, str]]:
    """Ways out of this machine that nothing encrypts, and what would."""
    if _database_is_plain(config.state.database_url.reveal()):
        yield "state.database_url", "?sslmode=verify-full"
    redis = urlsplit(config.state.redis_url.reveal())
    if redis.scheme == "redis" and not _is_here(redis.hostname):
        yield "state.redis_url", "rediss://"
    for channel in config.channels:
        url = urlsplit(channel.base_url)
        if url.scheme == "http" and not _is_here(url.hostname):
            yield f"channels ({channel.name}).base_url", "https://"


def _database_is_plain(text: str) -> bool:
    """PostgreSQL's default is to prefer encryption, which whoever stands between can refuse."""
    url = urlsplit(text)
    query = parse_qs(url.query)
    modes = query.get("sslmode") or query.get("ssl") or [""]
    if not text or modes[-1] in _SSL_MODES:
        return False
    hosts = query.get("host") or [url.netloc.rpartition("@")[2].rpartition(":")[0]]
    named = hosts[-1] or url.hostname or ""
    return not all(each.startswith("/") or _is_here(each) for each in named.split(",") if each)


def _is_here(host: str | None) -> bool:
    return not host or is_local(f"{host}:0")
