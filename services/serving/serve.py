"""`pomogator serve`: the service, and unless it is to be alone the edge, in one process.

The edge calls the core directly (`services.serving.core_backend`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import msgspec

from gateway.config import EdgeTables
from gateway.edge import open_tracer, prepare_process, refuse_plain_text, stop_signal
from gateway.overload.body_budget import BodyBudget
from gateway.overload.memory_monitor import MemoryMonitor, monitoring
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.common.process_settings import freeze_gc
from services.config import Config, ConfigError, load
from services.rpc.listener import UNIX
from services.serving.config_watch import content, watching_file
from services.serving.first_key import ServedUrls, base_url, client_address, print_first_key
from services.serving.listeners import CONSOLE_TOKEN_FILE, Listeners, operators_token, tls_files
from services.serving.missing_models import log_missing
from services.serving.options import ServeOptions
from services.serving.plain_text import log_plain_text, plain_listeners
from services.serving.server import SYSTEM_CLOCK, open_service
from services.serving.service import Service
from services.serving.unpriced_models import log_unpriced
from services.telemetry.call_tracing import call_tracer

log = logging.getLogger(__name__)


async def run(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises ConfigError, StateError and OSError before the first call is accepted. After a
    background task has failed again and again it drains, too, and raises SystemExit(1).
    """
    prepare_process()
    refuse_plain_text(plain_listeners(options), options.tls.insecure)
    stop = stop_signal()
    memory = MemoryMonitor()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(monitoring(memory))
        service = await _start(stack, options, memory)
        given_up = service.supervisor.given_up
        await _first_of(stop, given_up)
        log.info("shutdown.started")
    if given_up.is_set():
        log.error("server.failed")
        raise SystemExit(1)


async def _first_of(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _start(stack: AsyncExitStack, options: ServeOptions, memory: MemoryMonitor) -> Service:
    path = options.config_path
    seen = content(path) if options.watch_config and path is not None else None
    read = partial(_read, options)
    config = read()
    token = operators_token(options)
    tracer = await open_tracer(stack, config.traces, "pomogator")
    spans = call_tracer(tracer, SYSTEM_CLOCK)
    opening = open_service(config, options.state, read=read, tracer=spans, memory=memory)
    service = await stack.enter_async_context(opening)
    reload = service.system_reload.reload
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, "SIGHUP")
    if path is not None and seen is not None:
        changed = partial(reload, "change of the file")
        await stack.enter_async_context(watching_file(path, seen, changed, service.supervisor))

    tls = tls_files(options.tls)
    listeners = Listeners(
        stack=stack,
        service=service,
        options=options,
        tls=tls,
        token=token,
        bodies=BodyBudget(config.bounds.body_memory_bytes_max),
    )
    freeze_gc()
    started = asyncio.Event()
    # Probes and metrics start first, so that they stop last: they show a drain to its end.
    await listeners.serve_metrics(started)
    grpc = await listeners.serve_grpc(memory)
    stack.push_async_callback(service.move_clients_away)
    known = "" if grpc.startswith(UNIX) else client_address(grpc)
    edge = msgspec.structs.replace(config.edge, public_grpc=config.edge.public_grpc or known)
    tables = EdgeTables(bounds=config.bounds, edge=edge)
    await listeners.serve_operators_rest(tables)
    rest = options.rest
    if options.workers:
        rest = await listeners.serve_workers()
    elif not options.grpc_only:
        metrics = EdgeMetrics()
        service.registry.register(metrics)
        rest = await listeners.serve_rest(tables, metrics, tracer, memory)
    else:
        stack.push_async_callback(asyncio.sleep, options.shutdown_delay_s)
    urls = ServedUrls(api=base_url(rest, tls=tls is not None and not options.grpc_only))
    if console := await listeners.serve_console(tables, urls.api):
        urls = replace(
            urls,
            console=f"{base_url(console, tls=tls is not None)}/console",
            token_file=None if token else options.state / CONSOLE_TOKEN_FILE,
        )
    stack.push_async_callback(service.drain)
    started.set()
    await print_first_key(
        service.key_maker, config, urls, asked=options.print_first_key, state=options.state
    )
    return service


def _read(options: ServeOptions) -> Config:
    """The configuration, at the start and at each reload. Raises ConfigError."""
    config = load(options.config_path, dialects=options.dialects)
    if config.client_certificates and options.tls.client_ca is None:
        raise ConfigError("client_certificates: callers are known only with --tls-client-ca")
    log_plain_text(config)
    log_missing(config)
    log_unpriced(config)
    return config
