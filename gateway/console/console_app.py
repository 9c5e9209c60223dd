"""Console application: the console on a listener of its own."""

from __future__ import annotations

import grpc
from aiohttp import web

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.console.console import Console
from gateway.console.operator_access import OperatorAccess
from gateway.console.pages import redirect
from gateway.console.tenant_pages import HOME
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.body_admission import BodyAdmission
from gateway.http.known_keys import KnownKeys
from gateway.http.middleware import add_headers, border
from gateway.http.request_urls import add_head_routes
from gateway.http.runner import CONFIG
from gateway.http.trusted_proxies import TrustedProxies
from gateway.overload.body_budget import BodyBudget
from gateway.surfaces.completion_handler import CompletionHandler
from gateway.surfaces.openai_chat.surface import OpenAIChat
from gateway.telemetry.request_observer import OBSERVER, RequestObserver


def create_console_app(
    channel: grpc.aio.Channel,
    backend: Backend,
    config: EdgeConfig,
    operators: OperatorAccess | None,
    bodies: BodyBudget,
) -> web.Application:
    """Return the application. `channel` leads to the public services, as `backend` does.

    Without `operators` it is for tenants alone.
    """
    throttle = AuthThrottle(proxies=TrustedProxies(config.trusted_proxies))
    app = web.Application(middlewares=[border, throttle.middleware])
    app[OBSERVER] = RequestObserver()
    app[CONFIG] = config
    app.on_response_prepare.append(add_headers)
    admission = BodyAdmission(
        call_limit=backend.call_limit,
        known_keys=KnownKeys(backend.check_key),
        budget=bodies,
    )
    chat = CompletionHandler(OpenAIChat(), backend, config, admission)
    console = Console(channel, backend, chat.handle_routed, throttle, config, operators)
    app.add_routes(console.routes())
    app.router.add_get("/", _to_console)
    add_head_routes(app.router)
    return app


async def _to_console(_: web.Request) -> web.Response:
    return redirect(HOME)
