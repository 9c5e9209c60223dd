"""Listeners of `pomogator serve`: metrics and probes, gRPC, operators' REST, REST."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import EdgeConfig, EdgeTables
from gateway.console.operator_access import OperatorAccess
from gateway.edge import edge_config, log_started, serve_metrics
from gateway.overload.body_budget import BodyBudget
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.server import serving_console, serving_operators_rest, serving_rest
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.accounts.credential import TOKEN_VARIABLE, OperatorCredential, valid_token
from services.common.addresses import naming_option
from services.common.metrics_page import serving_metrics
from services.common.tls import ListenerTls
from services.config import ConfigError
from services.rpc.large_requests import LargeRequests
from services.rpc.listener import UNIX, listening
from services.serving.core_backend import CoreBackend
from services.serving.edge_workers import running_workers
from services.serving.options import ServeOptions, TlsOptions
from services.serving.service import Service
from services.serving.servicers import OPERATORS_SERVICES, PUBLIC_SERVICES
from services.storage.secret_file import secret_of_state

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


CONSOLE_TOKEN_FILE = "console-token"  # noqa: S105 - the file, not the token

SPARE_BELOW = 0.5
"""Share of the container's memory below which there is memory to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """The listeners of one process. `stack` closes each, in the reverse order of their start."""

    stack: AsyncExitStack
    service: Service
    options: ServeOptions
    tls: ListenerTls | None
    """None: all listeners are plain text."""
    token: str = field(repr=False)
    """Credential of operators on TCP. Empty: there are none."""
    bodies: BodyBudget
    """The memory for large requests of this process, over REST and gRPC together."""

    async def serve_metrics(self, started: asyncio.Event) -> None:
        """Serve metrics and probes. Readiness is false until `started` is set."""

        async def ready() -> bool:
            return started.is_set() and await self.service.serves()

        registry = self.service.registry
        await serve_metrics(
            self.stack,
            lambda address: serving_metrics(registry, address, ready),
            self.options.metrics,
        )

    async def serve_grpc(self, memory: MemoryMonitor) -> str:
        """Serve the operators' and the public gRPC services. Returns the address of the latter."""
        service, options = self.service, self.options
        # On a Unix socket the file's permission says who may call.
        named = [service.client_authorizer] if self.tls and self.tls.client_ca else []
        credential = [] if options.ops.startswith(UNIX) else [OperatorCredential(self.token)]
        operators = service.register_operators, options.ops, OPERATORS_SERVICES
        public = service.register, options.grpc, PUBLIC_SERVICES
        for option, (register, address, names), guards, check_key in (
            ("--ops", operators, [*named, *credential], None),
            ("--grpc", public, named, service.keyring.authenticate),
        ):
            listener = listening(
                register,
                address,
                reflected=names if options.reflection else (),
                interceptors=[service.rpcs]
                if address.startswith(UNIX)
                else [service.rpcs, *guards],
                tls=self.tls,
                grace_s=options.drain_timeout_s,
                large_requests=LargeRequests(
                    check_key, self.bodies, lambda: memory.used_share < SPARE_BELOW
                ),
            )
            with naming_option(option):
                bound = await self.stack.enter_async_context(listener)
            log_started("grpc", bound)
        return bound

    async def serve_operators_rest(self, tables: EdgeTables) -> None:
        """Serve the operators' REST API, if it has an address."""
        if not self.options.ops_rest:
            return
        client_ca = self.tls.client_ca if self.tls else None
        tls = listener_tls(self.tls, client_ca)
        channel = await self.stack.enter_async_context(self.service.operators_channel())
        listener = serving_operators_rest(
            channel,
            self.options.ops_rest,
            self.token,
            self._edge_config(tables),
            tls=tls.http_context() if tls else None,
        )
        with naming_option("--ops-rest"):
            bound = await self.stack.enter_async_context(listener)
        log_started("operators-http", bound)

    async def serve_rest(
        self, tables: EdgeTables, metrics: EdgeMetrics, tracer: Tracer | None, memory: MemoryMonitor
    ) -> str:
        """Serve the REST API by an edge in this process. Returns its address."""
        options = self.options
        # Clients of the REST API show keys: the CA is for gRPC callers and operators.
        tls = listener_tls(self.tls)
        service = self.service
        channel = await self.stack.enter_async_context(service.channel())
        listener = serving_rest(
            channel,
            options.rest,
            self._edge_config(tables),
            tls=tls.http_context() if tls else None,
            metrics=metrics,
            tracer=tracer,
            backend=CoreBackend(service, channel),
            memory=memory,
            bodies=self.bodies,
        )
        with naming_option("--rest"):
            bound = await self.stack.enter_async_context(listener)
        log_started("http", bound)
        return bound

    async def serve_console(self, tables: EdgeTables, api_url: str) -> str:
        """Serve the console, if it has an address. Returns that address.

        `api_url` is the base URL of the REST API, where the configuration names no other.
        """
        options, service = self.options, self.service
        if not options.console:
            return ""
        tls = listener_tls(self.tls, self.tls.client_ca if self.tls else None)
        channel = await self.stack.enter_async_context(service.channel())
        operators = await self.stack.enter_async_context(service.operators_channel())
        config = self._edge_config(tables)
        listener = serving_console(
            channel,
            options.console,
            replace(config, public_url=config.public_url or api_url),
            backend=CoreBackend(service, channel),
            operators=OperatorAccess(
                operators, self.token or console_token(options.state), self.bodies
            ),
            bodies=self.bodies,
            tls=tls.http_context() if tls else None,
        )
        with naming_option("--console"):
            bound = await self.stack.enter_async_context(listener)
        log_started("console", bound)
        return bound

    async def serve_workers(self) -> str:
        """Serve the REST API by edges in processes of their own. Returns their address."""
        service, options = self.service, self.options
        socket = f"{UNIX}{options.state / 'edges.sock'}"
        listener = listening(
            service.register, socket, interceptors=[service.rpcs], grace_s=options.drain_timeout_s
        )
        target = await self.stack.enter_async_context(listener)
        workers = running_workers(options, target, service.supervisor)
        with naming_option("--rest"):
            return await self.stack.enter_async_context(workers)

    def _edge_config(self, tables: EdgeTables) -> EdgeConfig:
        return edge_config(tables, self.options.drain_timeout_s, self.options.shutdown_delay_s)


def tls_files(tls: TlsOptions) -> ListenerTls | None:
    """Certificates of the listeners. Raises ConfigError where half of a pair is missing."""
    if tls.certificate is None and tls.key is None and tls.client_ca is None:
        return None
    if tls.certificate is None or tls.key is None:
        raise ConfigError("--tls-cert and --tls-key go together, and --tls-client-ca with both")
    return ListenerTls(certificate=tls.certificate, key=tls.key, client_ca=tls.client_ca)


def operators_token(options: ServeOptions) -> str:
    """The credential of operators on TCP, from the environment. Raises ConfigError.

    Empty where they use a Unix socket alone: its file permission is the credential.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if options.ops.startswith(UNIX) and not options.ops_rest and not (options.console and token):
        return ""
    try:
        return valid_token(token)
    except ValueError as error:
        message = f"{TOKEN_VARIABLE}: {error}, and operators on TCP need one"
        raise ConfigError(message) from None


def console_token(state: Path) -> str:
    """The token that operators sign in to the console with, where the environment has none.

    Raises ConfigError.
    """
    try:
        return valid_token(secret_of_state(state, CONSOLE_TOKEN_FILE).decode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{state / CONSOLE_TOKEN_FILE}: {error}") from None


def listener_tls(files: ListenerTls | None, client_ca: Path | None = None) -> ListenerTls | None:
    """TLS of an HTTP listener; with `client_ca`, clients need a certificate."""
    return replace(files, client_ca=client_ca) if files else None
