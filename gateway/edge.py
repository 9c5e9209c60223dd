"""One edge in a process of its own, from start to graceful shutdown.

`python -m gateway` and `pomogator serve --only rest` both run it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import EdgeConfig, EdgeTables, load_tables
from gateway.overload.memory_monitor import MemoryMonitor, monitoring
from gateway.rpc.reconnecting_channel import reconnect_on_hangup
from gateway.rpc.service_channel import open_channel
from gateway.server import serving_rest
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.edge_metrics_page import serving_edge_metrics
from gateway.telemetry.tracer import TracesOptions, TracesUnavailableError, opening_tracer
from services.common import json_logs
from services.common.addresses import is_local, naming_option
from services.common.config_tables import ConfigError, TracesConfig
from services.common.console_secret import console_secret
from services.common.heap import keep_freed_memory
from services.common.log_handler import NonBlockingHandler
from services.common.process_settings import disable_core_dumps, freeze_gc, raise_fd_limit
from services.common.tls import ListenerTls, TargetTls

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

METRICS = "127.0.0.1:9090"
"""Address of the metrics page unless one is named. No error if another program has it."""

VERSION = version("pomogator")

_log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """How an edge was told to run: its command line, checked."""

    config_path: Path | None
    """The configuration, of which the edge reads `gateway.config.EdgeTables`. None: defaults."""
    rest: str
    """Address of the REST API: `HOST:PORT`."""
    target: str
    """The gRPC service, as gRPC names it."""
    metrics: str | None
    """Address of the metrics page: `HOST:PORT`. Empty: none. None: `METRICS`, if it is free."""
    shutdown_delay_s: float
    """How long new calls are accepted after readiness turned false."""
    drain_timeout_s: float
    """How long in-flight calls may take to end after that."""
    tls: ListenerTls | None
    """None: the REST API is plain text."""
    target_tls: TargetTls | None
    """None: the way to the service is plain text."""
    insecure: frozenset[str]
    """Links that may leave the machine in plain text: of `gateway.arguments.LINKS`."""
    is_worker: bool
    """Whether it shares its address with other edges, and stops when its standard input ends."""


async def run_edge(options: EdgeOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises ConfigError and OSError before the first request is accepted.
    """
    prepare_process()
    refuse_plain_text(_plain_addresses(options), options.insecure)
    tables = load_tables(options.config_path)
    config = edge_config(tables, options.drain_timeout_s, options.shutdown_delay_s)
    stop = stop_signal()
    if options.is_worker:
        await _stop_at_end_of_input(stop)
    memory, metrics = MemoryMonitor(), EdgeMetrics()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(monitoring(memory))
        channel = await stack.enter_async_context(
            open_channel(options.target, config, tls=options.target_tls)
        )
        reconnect_on_hangup(channel)
        tracer = await open_tracer(stack, tables.traces, "pomogator-edge")
        freeze_gc()
        page = partial(
            serving_edge_metrics, metrics, version=VERSION, memory_used=lambda: memory.used_share
        )
        await serve_metrics(stack, page, options.metrics)
        edge = serving_rest(
            channel,
            options.rest,
            config,
            tls=options.tls.http_context() if options.tls else None,
            metrics=metrics,
            tracer=tracer,
            memory=memory,
            shared_port=options.is_worker,
        )
        with naming_option("--rest"):
            bound = await stack.enter_async_context(edge)
        log_started("http", bound)
        await stop.wait()
        _log.info("shutdown.started")


def prepare_process() -> None:
    """Set up logs, memory and limits of a process that serves."""
    json_logs.configure(NonBlockingHandler())
    keep_freed_memory()
    raise_fd_limit()
    disable_core_dumps()


def stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends: the process that has started this one is gone."""

    class Input(asyncio.Protocol):
        def connection_lost(self, _: Exception | None) -> None:
            stop.set()

    await asyncio.get_running_loop().connect_read_pipe(Input, sys.stdin)


def refuse_plain_text(addresses: Mapping[str, str], insecure: Collection[str]) -> None:
    """Raise ConfigError if a link leaves the machine unencrypted without the operator's consent.

    `addresses` are those of the unencrypted links, by option.
    """
    for name, address in addresses.items():
        if address and name not in insecure and not is_local(address):
            raise ConfigError(
                f"--{name} {address} would be plain text on the network: give certificates, or "
                f"--insecure {name} where something else encrypts it"
            )


def edge_config(tables: EdgeTables, drain_timeout_s: float, shutdown_delay_s: float) -> EdgeConfig:
    """The edge's limits, with those of the configuration file and the command line."""
    bounds, edge = tables.bounds, tables.edge
    return EdgeConfig(
        body_bytes_max=bounds.body_bytes_max,
        body_memory_bytes_max=bounds.body_memory_bytes_max,
        connections_max=bounds.connections_max,
        headers_timeout_s=edge.headers_timeout_s,
        idle_timeout_s=edge.idle_timeout_s,
        trusted_proxies=edge.trusted_proxies,
        cors_origins=edge.cors_origins,
        console=edge.console,
        console_secret=console_secret(os.environ),
        public_url=edge.public_url,
        public_grpc=edge.public_grpc,
        drain_timeout_s=drain_timeout_s,
        shutdown_delay_s=shutdown_delay_s,
    )


async def open_tracer(stack: AsyncExitStack, traces: TracesConfig, service: str) -> Tracer | None:
    """Open the exporter of spans, if there is a collector. Raises ConfigError."""
    options = TracesOptions(
        service=service, version=VERSION, endpoint=traces.endpoint, ratio=traces.ratio
    )
    try:
        return await stack.enter_async_context(opening_tracer(options, os.environ))
    except TracesUnavailableError as error:
        raise ConfigError(f"traces.endpoint: {error}") from None


async def serve_metrics(
    stack: AsyncExitStack,
    serve: Callable[[str], AbstractAsyncContextManager[str]],
    address: str | None,
) -> None:
    """Serve the metrics page at `address`. A default address that is taken is only logged."""
    if address == "":
        return
    try:
        with naming_option("--metrics"):
            bound = await stack.enter_async_context(serve(address or METRICS))
    except OSError as error:
        if address:
            raise
        _log.warning("metrics.unavailable", extra={"reason": str(error)})
        return
    log_started("metrics", bound)


def log_started(protocol: str, address: str) -> None:
    """Log that a listener accepts connections."""
    _log.info("server.started", extra={"protocol": protocol, "address": address})


def _plain_addresses(options: EdgeOptions) -> Mapping[str, str]:
    plain = {"metrics": options.metrics or ""}
    if options.target_tls is None:
        plain["target"] = options.target
    if options.tls is None:
        plain["rest"] = options.rest
    return plain
