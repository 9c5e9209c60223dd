"""Models handler: GET /v1/models and /v1/models/{model}.

The form is OpenAI's and OpenRouter's, or that of an API of which the client sends the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from aiohttp import web
from multidict import MultiMapping

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import expect_continue
from gateway.http.call_options import deadline_s, idempotency_key, trace_context
from gateway.http.credentials import BEARER_ONLY, api_key
from gateway.http.middleware import REQUEST_ID
from gateway.surfaces.base import ModelsForm, Surface
from gateway.surfaces.models.model_members import members_of
from services.domain.call_options import CallOptions
from services.domain.error_reason import ErrorReason
from services.domain.model import Model

LIST_PATH = "/v1/models"
MODEL_PATH = "/v1/models/{model:.+}"
"""The name of a model may contain slashes."""


class OpenAIModels:
    """The form of the list, and of a model: OpenAI's, with what OpenRouter's has beside it."""

    def render_list(self, models: Sequence[Model], query: MultiMapping[str]) -> bytes:  # noqa: ARG002
        """Render the whole list, whatever the query."""
        data = [members_of(model) for model in models]
        return msgspec.json.encode({"object": "list", "data": data})

    def render_model(self, model: Model) -> bytes:
        """Render a model."""
        return msgspec.json.encode(members_of(model))


class _Client(NamedTuple):
    """Clients of one API."""

    form: ModelsForm
    credential_headers: Sequence[str]
    request_id_header: str = ""


_OPENAI = _Client(OpenAIModels(), BEARER_ONLY)


class ModelsHandler:
    """Handler of the models that a key may use."""

    def __init__(
        self,
        backend: Backend,
        config: EdgeConfig,
        surfaces: Sequence[Surface] = (),
    ) -> None:
        self._backend = backend
        self._config = config
        self._clients = {
            each.marker_header: _Client(
                each.models_form, each.credential_headers, each.request_id_header
            )
            for each in surfaces
            if each.models_form is not None
        }

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes for aiohttp's router."""
        return [
            web.route("GET", LIST_PATH, self.list, expect_handler=expect_continue),
            web.route("GET", MODEL_PATH, self.get, expect_handler=expect_continue),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all models that the key may use."""
        client = self._client(request)
        call = self._call(request, client)
        listed = await self._backend.models(call)
        return _json(client.form.render_list(listed, request.query), request, client)

    async def get(self, request: web.Request) -> web.Response:
        """Answer with one model, whose name may contain slashes."""
        client = self._client(request)
        call = self._call(request, client)
        try:
            found = await self._backend.model(request.match_info["model"], call)
        except ApiError as error:
            if error.reason == ErrorReason.NOT_FOUND:
                error.code = "model_not_found"  # OpenAI's code, which SDKs check.
            raise
        return _json(client.form.render_model(found), request, client)

    def _client(self, request: web.Request) -> _Client:
        clients = self._clients
        return next((clients[name] for name in clients if name in request.headers), _OPENAI)

    def _call(self, request: web.Request, client: _Client) -> CallOptions:
        headers = request.headers
        return CallOptions(
            key=api_key(headers, client.credential_headers),
            request_id=request[REQUEST_ID],
            idempotency_key=idempotency_key(headers) or None,
            trace_context=trace_context(headers),
            deadline_s=deadline_s(headers, self._config, whole=True),
        )


def _json(body: bytes, request: web.Request, client: _Client) -> web.Response:
    name = client.request_id_header
    headers = {name: request[REQUEST_ID]} if name else None
    return web.Response(body=body, content_type="application/json", headers=headers)
