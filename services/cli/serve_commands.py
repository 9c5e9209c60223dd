"""Commands that run the gateway, or read its configuration: serve, check, models list."""

from __future__ import annotations

import asyncio
import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gateway.arguments import edge_options
from gateway.edge import run_edge
from services.cli.operator_client import ops_address
from services.cli.output import CommandError, remark, say, say_table
from services.clock import SystemClock
from services.config import Config, ConfigError, load
from services.providers.connection_check import ConnectionResult, check_connections
from services.providers.http import Proxies
from services.providers.registry import NAMES
from services.routing.catalog import Catalog
from services.serving.missing_models import NO_MODELS
from services.serving.options import ServeOptions, TlsOptions
from services.serving.serve import run
from services.serving.server import egress_proxies
from services.serving.stores import database_options
from services.serving.unpriced_models import describe_unpriced
from services.storage.store_check import StoreUrls, check_stores

log = logging.getLogger("services")


async def serve(arguments: Namespace, _env: Mapping[str, str]) -> None:
    """Run the server, or with `--only rest` an edge, until it is told to stop."""
    if arguments.workers and arguments.only:
        raise ConfigError("--workers are edges beside a service: it goes without --only")
    if arguments.only == "rest":
        await run_edge(edge_options(arguments, arguments.target or arguments.grpc))
        return
    if arguments.target:
        raise ConfigError("--target is the service of an edge: it goes with --only rest")
    await run(
        ServeOptions(
            config_path=arguments.config,
            dialects=NAMES,
            state=arguments.state,
            grpc_only=arguments.only == "grpc",
            workers=arguments.workers,
            rest=arguments.rest,
            grpc=arguments.grpc,
            ops=ops_address(arguments),
            ops_rest=arguments.ops_rest,
            console=arguments.console,
            metrics=arguments.metrics,
            shutdown_delay_s=arguments.shutdown_delay,
            drain_timeout_s=arguments.drain_timeout,
            watch_config=arguments.watch_config,
            reflection=arguments.reflection,
            print_first_key=arguments.print_first_key,
            tls=TlsOptions(
                certificate=arguments.tls_cert,
                key=arguments.tls_key,
                client_ca=arguments.tls_client_ca,
                insecure=arguments.insecure,
            ),
        )
    )


async def check(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Check the configuration with the server's loader, and print the models without a price.

    With `--connect`, connect to every store and every channel's address as well.
    """
    config = load(arguments.config, env, dialects=NAMES)
    proxies = egress_proxies(env)
    routes = Catalog(config).routes
    say(f"OK: {len(config.channels)} channels, {len(routes)} models")
    if not routes:
        remark(NO_MODELS)
    _say_unpriced(config)
    if arguments.connect:
        await _connect(config, proxies)


async def _connect(config: Config, proxies: Proxies) -> None:
    state = config.state
    urls = StoreUrls(
        database=state.database_url.reveal(),
        call_log=state.call_log_url.reveal() if config.call_log.enabled else "",
        redis=state.redis_url.reveal(),
    )
    with _without_log():
        stores, channels = await asyncio.gather(
            check_stores(urls, database_options(state), SystemClock()),
            check_connections(config, proxies),
        )
    say_table(
        ("NAME", "ADDRESS", "CONNECTION"),
        [
            *((key, row.address, _connection(row.failure, row.permanent)) for key, row in stores),
            *((row.channel, row.address, _channel(row)) for row in channels),
        ],
    )
    failures = [*(row.failure for _, row in stores), *(row.failure for row in channels)]
    if failed := sum(map(bool, failures)):
        raise CommandError(f"{failed} of {len(failures)} connections fail")


@contextmanager
def _without_log() -> Iterator[None]:
    """Log nothing of what the table has."""
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


async def list_models(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the public names, one a line, and then those without a price."""
    config = load(arguments.config, env, dialects=NAMES, secrets=False)
    routes = Catalog(config).routes
    for route in routes:
        say(route.model)
    if not routes:
        remark(NO_MODELS)
    _say_unpriced(config)


def _channel(row: ConnectionResult) -> str:
    if row.forwarder:
        return f"OK as far as the proxy {row.forwarder}"
    return _connection(row.failure, row.permanent)


def _connection(failure: str, permanent: bool) -> str:
    return f"{'permanent: ' * permanent}{failure}" or "OK"


def _say_unpriced(config: Config) -> None:
    if text := describe_unpriced(config):
        say(text)
