"""Embeddings handler: decode, call, render.

The call to the service ends with the client's request: a disconnect cancels the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.http.exchange import Exchange
from gateway.surfaces.answer_headers import COST_HEADER, notes_header
from gateway.surfaces.base import InboundApi, Route
from gateway.surfaces.embeddings.decode import DecodedRequest, decode
from gateway.surfaces.embeddings.render import render, rendered_bytes
from gateway.surfaces.surface_handler import MODEL_LOGGED_MAX, SurfaceHandler
from services.common.money import exact_usd
from services.common.off_loop import off_loop


class EmbeddingsApi(InboundApi):
    """OpenAI's embeddings."""

    name = "embeddings"
    routes = (Route("POST", "/v1/embeddings"),)


class EmbeddingsHandler(SurfaceHandler[EmbeddingsApi]):
    """Handler of requests for embeddings."""

    @property
    def served(self) -> Sequence[Route]:
        """The routes of embeddings."""
        return self.surface.routes

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        sent = exchange.sent
        asked, options, call = await self.read(exchange, _decode)
        exchange.outcome.update(model=asked.spec.model[:MODEL_LOGGED_MAX], stream=False)
        headers: dict[str, str] = {}
        answer = await self.backend.embed(asked.request(options.parameter_policy), call, headers)
        self.remember_key(sent)
        body = await off_loop(rendered_bytes(answer), render, answer, asked.encoding)
        headers |= notes_header(answer.notes)
        if answer.cost_nano_usd is not None:
            headers[COST_HEADER] = exact_usd(answer.cost_nano_usd)
        if exchange.send(200, body, headers):
            await exchange.writer.drained()


def _decode(body: bytes, _headers: MultiMapping[str], _config: EdgeConfig) -> DecodedRequest:
    return decode(body)
