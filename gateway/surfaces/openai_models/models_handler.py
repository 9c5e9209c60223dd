"""Models handler: GET /v1/models and /v1/models/{model}, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import msgspec
from aiohttp import web
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.models.v1.model_service_pb2_grpc import ModelServiceStub

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import expect_continue
from gateway.http.credentials import api_key
from gateway.http.middleware import REQUEST_ID
from gateway.rpc.call_metadata import call_metadata, deadline_s
from gateway.rpc.in_flight_calls import InFlightCalls
from gateway.surfaces.contract_routes import contract_routes
from services.domain.error_reason import ErrorReason

_SERVICE = models.DESCRIPTOR.services_by_name["ModelService"]


class ModelsHandler:
    """Handler of the models that a key may use."""

    def __init__(self, channel: grpc.aio.Channel, calls: InFlightCalls, config: EdgeConfig) -> None:
        self._stub = ModelServiceStub(channel)
        self._calls = calls
        self._config = config

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes of the contract, for aiohttp's router."""
        handlers = {"ListModels": self.list, "GetModel": self.get}
        return [
            web.route(verb, path, handlers[method], expect_handler=expect_continue)
            for method, verb, path in contract_routes(_SERVICE)
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all models that the key may use."""
        key = api_key(request.headers)
        pairs = call_metadata(request.headers, key, request[REQUEST_ID])
        timeout = deadline_s(request.headers, self._config, whole=True)
        call = self._stub.ListModels(models.ListModelsRequest(), metadata=pairs, timeout=timeout)
        with self._calls.track(call, request[REQUEST_ID], key):
            listed = await call
        return _json({"object": "list", "data": [_model(model) for model in listed.models]})

    async def get(self, request: web.Request) -> web.Response:
        """Answer with one model, whose name may contain slashes."""
        key = api_key(request.headers)
        pairs = call_metadata(request.headers, key, request[REQUEST_ID])
        timeout = deadline_s(request.headers, self._config, whole=True)
        rpc_request = models.GetModelRequest(model=request.match_info["model"])
        call = self._stub.GetModel(rpc_request, metadata=pairs, timeout=timeout)
        try:
            with self._calls.track(call, request[REQUEST_ID], key):
                found = await call
        except ApiError as error:
            if error.reason == ErrorReason.NOT_FOUND:
                error.code = "model_not_found"  # OpenAI's code, which SDKs check.
            raise
        return _json(_model(found.model))


def _model(model: models.Model) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.create_time.seconds,
        "owned_by": model.owner,
    }


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
