"""The application: handlers under the routes that the contract's annotations give them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import grpc
from aiohttp import web
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.usage.v1 import usage_service_pb2 as usage

from gateway import openapi
from gateway.config import EdgeConfig
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.fast_path.fast_path import FastPath
from gateway.http.middleware import Handler, add_headers, border
from gateway.http.probes import PROBES, Probes
from gateway.http.runner import CONFIG, FAST_PATH, MEMORY
from gateway.overload.admission_check import AdmissionCheck, CallLimit
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.rpc.in_flight_calls import InFlightCalls
from gateway.surfaces.openai_chat.handler import Completions
from gateway.surfaces.openai_models.handler import Models
from gateway.telemetry.access_log import WATCH, RequestObserver
from gateway.transcoding import routes

TRANSCODED = (usage.DESCRIPTOR.services_by_name["UsageService"],)
"""What needs no handler of its own."""

# `{model=**}` is a variable of several segments: google.api.http, "Path template syntax".
_VARIABLE = re.compile(r"\{(\w+)=\*\*\}")


def create_app(
    channel: grpc.aio.Channel,
    config: EdgeConfig,
    watch: RequestObserver | None = None,
    call_limit: CallLimit | None = None,
    memory: MemoryMonitor | None = None,
) -> web.Application:
    """The edge in front of the service at `channel`, which the caller opens and closes.

    `call_limit` is the limit of a service in this process. Without it the limit is learned from the
    service's refusals. While `memory` is short, calls are refused.
    `gateway.server` runs it; otherwise what the parser refuses is not answered in JSON.
    """
    calls = InFlightCalls()
    if call_limit is None:
        call_limit = calls.limit.retry_after_s
        if watch is not None:
            watch.metrics.watch_call_limit(calls.limit)
    admission = AdmissionCheck(call_limit, memory)
    completions = Completions(channel, calls, config, admission)
    listing = Models(channel, calls, config)
    probes = Probes(channel, config)
    guesses = AuthThrottle()
    app = web.Application(middlewares=[border, guesses.slow])
    app[CONFIG] = config
    if watch is not None:
        app[WATCH] = watch
    if memory is not None:
        app[MEMORY] = memory
        if watch is not None:
            watch.metrics.watch_memory(memory)
    app[FAST_PATH] = FastPath(completions.answer, guesses, config.body_bytes_max, watch, admission)
    app[PROBES] = probes
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(partial(_drain, calls))
    handlers: Mapping[str, Handler] = {
        "CreateChatCompletion": completions.create,
        "ListModels": listing.list,
        "GetModel": listing.get,
    }
    for service in (
        chat.DESCRIPTOR.services_by_name["ChatCompletionService"],
        models.DESCRIPTOR.services_by_name["ModelService"],
    ):
        for method, verb, path in http_rules(service):
            app.router.add_route(verb, path, handlers[method], expect_handler=_expect)
    app.add_routes(routes(TRANSCODED, channel, config))
    app.router.add_get("/openapi.json", openapi.handler(openapi.openapi(TRANSCODED)))
    app.router.add_get("/healthz", probes.live)
    app.router.add_get("/readyz", probes.ready)
    return app


def http_rules(service: ServiceDescriptor) -> Iterator[tuple[str, str, str]]:
    """The methods of `service` that have a REST form: name, verb, path as aiohttp writes it."""
    for method in service.methods:
        rule = _rule(method)
        verb = rule.WhichOneof("pattern")
        if verb is not None:
            path: str = getattr(rule, verb)
            yield method.name, verb.upper(), _VARIABLE.sub(r"{\1:.+}", path)


def _rule(method: MethodDescriptor) -> http_pb2.HttpRule:
    extension: Any = annotations_pb2.http  # the stubs know it as a field, and not as an extension
    rule: http_pb2.HttpRule = method.GetOptions().Extensions[extension]
    return rule


async def _drain(calls: InFlightCalls, app: web.Application) -> None:
    await calls.drain(app[CONFIG].drain_timeout_s)


async def _expect(request: web.Request) -> None:
    """Leaves the `100 Continue` to who reads the body, if anybody does."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
