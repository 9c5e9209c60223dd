"""`pomogator serve`: the edge and the service in one process, or either alone.

The one place that knows both sides. They meet on an in-process channel, which the
edge cannot tell from a wire.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import grpc

from gateway.config import EdgeConfig
from gateway.http.tls import ListenerTls, ServiceTls
from gateway.overload.admission_check import Full
from gateway.overload.memory_monitor import MemoryMonitor, watching
from gateway.rpc.channel import open_channel
from gateway.rpc.reconnecting import follow_on_hangup
from gateway.server import serving, serving_operators
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.metrics_page import showing
from gateway.telemetry.tracer import TracesOptions, TracesUnavailableError, opening_tracer
from services.accounts.credential import TOKEN_VARIABLE, OperatorCredential, checked
from services.common import json_logs
from services.common.heap import keep_freed_memory
from services.common.log_queue import LinesHandler
from services.common.process import disable_core_dumps, freeze_gc, raise_fd_limit
from services.config import BoundsConfig, Config, ConfigError, TracesConfig, load
from services.overload.memory_pressure import MemoryPressure
from services.rpc.listener import UNIX, listening
from services.rpc.tls import TlsFiles
from services.serving.config_watch import content, following
from services.serving.options import METRICS, ServeOptions, TlsOptions
from services.serving.plain_text import refuse_plain_text, tell_plain_text
from services.serving.server import (
    OPERATORS_SERVICES,
    PUBLIC_SERVICES,
    SYSTEM_CLOCK,
    VERSION,
    Service,
    open_service,
)
from services.telemetry.call_traces import call_traces
from services.telemetry.metrics_listener import exposing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

FIRST_KEY = """
This is the first start: here is a key. It is shown only now.

  {key}

Talk to it:

  curl http://{rest}/v1/chat/completions \\
    -H "Content-Type: application/json" -H "Authorization: Bearer {key}" \\
    -d '{{"model": "{model}", "stream": true,
         "messages": [{{"role": "user", "content": "Hello!"}}]}}'
"""

NO_MODELS = """
There is no model to talk to yet: name a configuration with --config, or set the key of a
provider, such as ANTHROPIC_API_KEY.
"""


async def run(options: ServeOptions) -> None:
    """Serves until SIGTERM or SIGINT, then lets running calls end.

    Raises ConfigError, StateError and OSError before anything is served. Where a background
    task fails again and again it ends in the same order, with SystemExit and status 1.
    """
    json_logs.configure(LinesHandler())
    keep_freed_memory()
    raise_fd_limit()
    disable_core_dumps()
    if options.target and options.only != "rest":
        raise ConfigError("--target is where an edge finds its service: it goes with --only rest")
    refuse_plain_text(options)
    stop, given_up = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    memory = MemoryMonitor()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watching(memory))
        if options.only == "rest":
            target = options.target or options.grpc
            channel = await stack.enter_async_context(
                open_channel(target, EdgeConfig(), tls=_target_tls(options.tls))
            )
            follow_on_hangup(channel)
            tracer = await _tracer(stack, TracesConfig(), "pomogator-edge")
            edge = _Edge(EdgeMetrics(), tracer, memory)
            page = partial(showing, edge.metrics, version=VERSION, memory=memory)
            await _expose(stack, page, options.metrics)
            await _serve_rest(stack, channel, options, BoundsConfig(), edge)
        else:
            given_up = (await _serve_all(stack, options, memory)).supervisor.given_up
        freeze_gc()
        await _first_of(stop, given_up)
        log.info("server.stopping")
    if given_up.is_set():
        log.error("server.broken")
        raise SystemExit(1)


async def _first_of(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _serve_all(
    stack: AsyncExitStack, options: ServeOptions, memory: MemoryMonitor
) -> Service:
    path = options.config_path
    seen = content(path) if options.watch_config and path is not None else None
    read = partial(_read, options)
    config = read()
    token = _operators_token(options)
    edge = _Edge(EdgeMetrics(), await _tracer(stack, config.traces, "pomogator"), memory)
    tracing = call_traces(edge.tracer, SYSTEM_CLOCK)
    pressure = MemoryPressure(
        used_share=lambda: memory.used_share, is_short=lambda: memory.is_short
    )
    opening = open_service(config, options.state, read=read, tracing=tracing, memory=pressure)
    service = await stack.enter_async_context(opening)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, service)
    if path is not None and seen is not None:
        reload = partial(_reload, service)
        await stack.enter_async_context(following(path, seen, reload, service.supervisor))
    begun = asyncio.Event()
    # Probes and metrics come first, so that they go last: a drain is watched to its end.
    await _serve_metrics(stack, service, options.metrics, begun)
    await _serve_grpc(stack, service, options, token)
    stack.push_async_callback(service.dismiss)
    await _serve_operators_rest(stack, service, options, token)
    rest = options.rest
    if options.only is None:
        service.metrics.registry.register(edge.metrics)
        edge = edge._replace(full=service.turn_away)
        rest = await _serve_rest(stack, service.channel(), options, config.bounds, edge)
    else:
        stack.push_async_callback(asyncio.sleep, options.shutdown_delay_s)
    stack.push_async_callback(service.drain)
    begun.set()
    await _greet(service, config, rest)
    return service


def _read(options: ServeOptions) -> Config:
    """The configuration, at the start and whenever it is read anew. Raises ConfigError."""
    config = load(options.config_path)
    if config.client_certificates and options.tls.client_ca is None:
        raise ConfigError("client_certificates: who calls is known only with --tls-client-ca")
    tell_plain_text(config)
    return config


async def _serve_grpc(
    stack: AsyncExitStack, service: Service, options: ServeOptions, token: str
) -> None:
    tls = _tls(options.tls)
    # On a Unix socket the file's permission says who may call.
    named = [service.callers] if tls and tls.client_ca else []
    credential = [] if options.ops.startswith(UNIX) else [OperatorCredential(token)]
    for register, address, names, guards in (
        (service.register_operators, options.ops, OPERATORS_SERVICES, [*named, *credential]),
        (service.register, options.grpc, PUBLIC_SERVICES, named),
    ):
        listener = listening(
            register,
            address,
            reflected=names if options.reflection else (),
            guards=[service.rpcs] if address.startswith(UNIX) else [service.rpcs, *guards],
            tls=tls,
            grace_s=options.drain_timeout_s,
        )
        bound = await stack.enter_async_context(listener)
        log.info("server.listening", extra={"protocol": "grpc", "address": bound})


def _reload(service: Service) -> None:
    with suppress(ConfigError):  # It is in the log, and the old configuration stays.
        service.reloader.reload()


def _tls(tls: TlsOptions) -> TlsFiles | None:
    """What the listeners present. ConfigError where a half of it is missing."""
    if tls.certificate is None and tls.key is None and tls.client_ca is None:
        return None
    if tls.certificate is None or tls.key is None:
        raise ConfigError("--tls-cert and --tls-key go together, and --tls-client-ca with both")
    return TlsFiles(certificate=tls.certificate, key=tls.key, client_ca=tls.client_ca)


def _target_tls(tls: TlsOptions) -> ServiceTls | None:
    """How the service is spoken to. ConfigError where a half of it is missing."""
    if (tls.target_certificate is None) != (tls.target_key is None):
        raise ConfigError("--target-cert and --target-key go together")
    if tls.target_ca is None:
        if tls.target_key is not None:
            raise ConfigError("--target-cert needs --target-ca")
        return None
    return ServiceTls(ca=tls.target_ca, certificate=tls.target_certificate, key=tls.target_key)


def _operators_token(options: ServeOptions) -> str:
    """On a Unix socket the file's permission is the credential; on TCP there must be another."""
    if options.ops.startswith(UNIX) and not options.ops_rest:
        return ""
    try:
        return checked(os.environ.get(TOKEN_VARIABLE, ""))
    except ValueError as error:
        message = f"{TOKEN_VARIABLE}: {error}, and operators on TCP need one"
        raise ConfigError(message) from None


class _Edge(NamedTuple):
    """What an edge is watched with, and what it watches."""

    metrics: EdgeMetrics
    tracer: Tracer | None
    memory: MemoryMonitor
    full: Full | None = None
    """Says where there is no room for one more call, of a service in the same process."""


async def _tracer(stack: AsyncExitStack, traces: TracesConfig, name: str) -> Tracer | None:
    options = TracesOptions(
        service=name, version=VERSION, endpoint=traces.endpoint, ratio=traces.ratio
    )
    try:
        return await stack.enter_async_context(opening_tracer(options, os.environ))
    except TracesUnavailableError as error:
        raise ConfigError(f"traces.endpoint: {error}") from None


async def _serve_rest(
    stack: AsyncExitStack,
    channel: grpc.aio.Channel,
    options: ServeOptions,
    bounds: BoundsConfig,
    edge: _Edge,
) -> str:
    config = EdgeConfig(
        body_bytes_max=bounds.body_bytes_max,
        connections_max=bounds.connections_max,
        drain_timeout_s=options.drain_timeout_s,
        shutdown_delay_s=options.shutdown_delay_s,
    )
    files = _tls(options.tls)
    # Clients of the API show keys: the authority is for gRPC's callers, and for operators.
    tls = ListenerTls(certificate=files.certificate, key=files.key).context() if files else None
    listener = serving(
        channel,
        options.rest,
        config,
        tls=tls,
        metrics=edge.metrics,
        tracer=edge.tracer,
        full=edge.full,
        memory=edge.memory,
    )
    bound = await stack.enter_async_context(listener)
    log.info("server.listening", extra={"protocol": "http", "address": bound})
    return bound


async def _serve_operators_rest(
    stack: AsyncExitStack, service: Service, options: ServeOptions, token: str
) -> None:
    if not options.ops_rest:
        return
    files = _tls(options.tls)
    tls = None
    if files:
        own = ListenerTls(certificate=files.certificate, key=files.key, client_ca=files.client_ca)
        tls = own.context()
    channel = await stack.enter_async_context(service.operators_channel())
    listener = serving_operators(channel, options.ops_rest, token, EdgeConfig(), tls=tls)
    bound = await stack.enter_async_context(listener)
    log.info("server.listening", extra={"protocol": "operators-http", "address": bound})


async def _serve_metrics(
    stack: AsyncExitStack, service: Service, address: str | None, begun: asyncio.Event
) -> None:
    async def ready() -> bool:
        return begun.is_set() and await service.serves()

    await _expose(stack, lambda there: exposing(service.metrics.registry, there, ready), address)


async def _expose(
    stack: AsyncExitStack,
    serve: Callable[[str], AbstractAsyncContextManager[str]],
    address: str | None,
) -> None:
    """Nobody asked for the default address: it may be taken."""
    if address == "":
        return
    try:
        bound = await stack.enter_async_context(serve(address or METRICS))
    except OSError as error:
        if address:
            raise
        log.warning("metrics.not_served", extra={"reason": str(error)})
        return
    log.info("server.listening", extra={"protocol": "metrics", "address": bound})


async def _greet(service: Service, config: Config, rest: str) -> None:
    """Where there is no key yet, makes one and shows how to use it."""
    key = await service.key_maker.make_first()
    if key is None:
        return
    models = [name for channel in config.channels for name in channel.models]
    text = FIRST_KEY.format(key=key, rest=rest, model=models[0] if models else "MODEL")
    sys.stdout.write(text if models else text + NO_MODELS)
    sys.stdout.flush()
