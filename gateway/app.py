"""Public application: the routes of surfaces, models, transcoded methods and probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
from aiohttp import web
from pomogator.calls.v1 import call_service_pb2 as call_log
from pomogator.tenants.v1 import tenant_service_pb2 as tenants
from pomogator.usage.v1 import usage_service_pb2 as usage

from gateway import openapi, surfaces
from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.body_admission import BodyAdmission
from gateway.http.cors import CORS, CorsPolicy, add_cors_headers
from gateway.http.endpoint import Endpoint
from gateway.http.error_answer import ERROR_RENDERERS, MARKED_ERROR_RENDERERS, ErrorRenderer
from gateway.http.fast_path.fast_path import FastPath
from gateway.http.known_keys import KEY_FIRST_BYTES, KnownKeys
from gateway.http.middleware import add_headers, border
from gateway.http.probes import PROBES, Probes
from gateway.http.request_urls import URLS, UrlList, add_head_routes
from gateway.http.runner import CONFIG, FAST_PATH, MEMORY
from gateway.http.trusted_proxies import TrustedProxies
from gateway.overload.body_budget import BodyBudget
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.overload_metrics import declare_call_metrics
from gateway.rpc.grpc_backend import GrpcBackend
from gateway.surfaces.completion_handler import CompletionHandler
from gateway.surfaces.embeddings.embeddings_handler import EmbeddingsApi, EmbeddingsHandler
from gateway.surfaces.models.models_handler import ModelsHandler
from gateway.surfaces.openai_chat.surface import OpenAIChat
from gateway.surfaces.surface_handler import SurfaceHandler
from gateway.surfaces.token_count_handler import TokenCountHandler
from gateway.telemetry.request_observer import OBSERVER, RequestObserver
from gateway.transcoding import routes

if TYPE_CHECKING:
    from gateway.console.console import Console

TRANSCODED = (
    usage.DESCRIPTOR.services_by_name["UsageService"],
    call_log.DESCRIPTOR.services_by_name["CallService"],
    tenants.DESCRIPTOR.services_by_name["TenantService"],
)
"""Services whose methods need no handler of their own. Their bodies are small, and are read before
their key is known."""

DESCRIPTION = msgspec.json.encode(
    {
        "service": "pomogator",
        "base_url": "/v1",
        "openapi": "/openapi.json",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
)
"""The answer at `/`. It shows no version, since it needs no key."""


def create_app(
    channel: grpc.aio.Channel,
    config: EdgeConfig,
    observer: RequestObserver | None = None,
    memory: MemoryMonitor | None = None,
    backend: Backend | None = None,
    *,
    bodies: BodyBudget | None = None,
) -> web.Application:
    """Return the edge in front of the service at `channel`, which the caller opens and closes.

    `backend` is the service without gRPC, where it has such a form: then `channel` serves only the
    transcoded methods.
    While `memory` is short, calls are refused. `bodies` is the memory for large bodies, where
    others share it.
    `gateway.server` runs the application; otherwise aiohttp answers malformed HTTP itself, and not
    in JSON.
    """
    backend = backend or GrpcBackend(channel, memory)
    admission = BodyAdmission(
        call_limit=backend.call_limit,
        monitor=memory,
        known_keys=KnownKeys(backend.check_key),
        budget=bodies or BodyBudget(config.body_memory_bytes_max),
    )
    throttle = AuthThrottle(proxies=TrustedProxies(config.trusted_proxies))
    cors = CorsPolicy(config.cors_origins)
    app = web.Application(middlewares=[border, cors.middleware, throttle.middleware])
    if config.cors_origins:
        app[CORS] = cors
        app.on_response_prepare.append(add_cors_headers)
    app[CONFIG] = config
    app[OBSERVER] = observer = observer or RequestObserver()
    declare_call_metrics(observer.metrics, backend.learned_limit, memory, admission.budget)
    if memory is not None:
        app[MEMORY] = memory
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(partial(_drain, backend))
    handlers = _handlers(backend, config, admission)
    endpoints = [endpoint for handler in handlers for endpoint in handler.endpoints()]
    app[FAST_PATH] = FastPath(endpoints, throttle, config.body_bytes_max, observer, admission)
    _set_error_renderers(app, endpoints)
    for handler in handlers:
        app.add_routes(handler.routes())
    app.add_routes(ModelsHandler(backend, config, surfaces.SURFACES).routes())
    small_bodies = min(config.body_bytes_max, KEY_FIRST_BYTES)
    app.add_routes(routes(TRANSCODED, channel, replace(config, body_bytes_max=small_bodies)))
    if config.console:
        chat = next(each for each in handlers if isinstance(each.surface, OpenAIChat))
        # Loaded only here: see `gateway.console`.
        found: type[Console] = import_module("gateway.console.console").Console
        console = found(channel, backend, chat.handle_routed, throttle, config)
        app.add_routes(console.routes())
    app.router.add_get("/openapi.json", openapi.handler(openapi.openapi(TRANSCODED)))
    _add_probes(app, Probes(backend, config))
    app.router.add_get("/", _describe)
    add_head_routes(app.router)
    app[URLS] = UrlList.of(app.router)
    return app


def _handlers(
    backend: Backend, config: EdgeConfig, admission: BodyAdmission
) -> Sequence[SurfaceHandler[Any]]:
    """Return the handlers of all requests with a prompt."""
    made: list[SurfaceHandler[Any]] = [
        kind(surface, backend, config, admission)
        for surface in surfaces.SURFACES
        for kind in (CompletionHandler, TokenCountHandler)
    ]
    return [*made, EmbeddingsHandler(EmbeddingsApi(), backend, config, admission)]


def _set_error_renderers(app: web.Application, endpoints: Sequence[Endpoint]) -> None:
    """Give errors the form of the API at the path, or else that of the client's API."""
    app[ERROR_RENDERERS] = {endpoint.path: endpoint.render_error for endpoint in endpoints}
    marked: dict[str, ErrorRenderer] = {
        each.marker_header: each.render_error for each in surfaces.SURFACES if each.marker_header
    }
    app[MARKED_ERROR_RENDERERS] = marked


def _add_probes(app: web.Application, probes: Probes) -> None:
    app[PROBES] = probes
    app.router.add_get("/healthz", probes.live)
    app.router.add_get("/health", probes.live)
    app.router.add_get("/readyz", probes.ready)


async def _describe(_: web.Request) -> web.Response:
    """Answer a probe or a person at `/`."""
    return web.Response(body=DESCRIPTION, content_type="application/json")


async def _drain(backend: Backend, app: web.Application) -> None:
    await backend.drain(app[CONFIG].drain_timeout_s)
