"""Models handler: GET /v1/models and /v1/models/{model}, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from gateway.backend import Backend, CallOptions
from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import expect_continue
from gateway.http.call_options import deadline_s, idempotency_key, trace_context
from gateway.http.credentials import api_key
from gateway.http.middleware import REQUEST_ID
from gateway.overload.in_flight_calls import InFlightCalls
from services.domain.error_reason import ErrorReason
from services.domain.model import Model

LIST_PATH = "/v1/models"
MODEL_PATH = "/v1/models/{model:.+}"
"""The name of a model may contain slashes."""


class ModelsHandler:
    """Handler of the models that a key may use."""

    def __init__(self, backend: Backend, calls: InFlightCalls, config: EdgeConfig) -> None:
        self._backend = backend
        self._calls = calls
        self._config = config

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes for aiohttp's router."""
        return [
            web.route("GET", LIST_PATH, self.list, expect_handler=expect_continue),
            web.route("GET", MODEL_PATH, self.get, expect_handler=expect_continue),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all models that the key may use."""
        call = self._call(request)
        with self._calls.track(call.key):
            listed = await self._backend.models(call)
        return _json({"object": "list", "data": [_model(model) for model in listed]})

    async def get(self, request: web.Request) -> web.Response:
        """Answer with one model, whose name may contain slashes."""
        call = self._call(request)
        try:
            with self._calls.track(call.key):
                found = await self._backend.model(request.match_info["model"], call)
        except ApiError as error:
            if error.reason == ErrorReason.NOT_FOUND:
                error.code = "model_not_found"  # OpenAI's code, which SDKs check.
            raise
        return _json(_model(found))

    def _call(self, request: web.Request) -> CallOptions:
        headers = request.headers
        return CallOptions(
            key=api_key(headers),
            request_id=request[REQUEST_ID],
            idempotency_key=idempotency_key(headers),
            trace_context=trace_context(headers),
            deadline_s=deadline_s(headers, self._config, whole=True),
        )


def _model(model: Model) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.create_time_s,
        "owned_by": model.owner,
    }


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
