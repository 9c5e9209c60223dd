"""Token count handler: decode a prompt, count its tokens, render the number.

It is admitted like a completion, but takes nothing from the balance.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.http.exchange import Exchange
from gateway.surfaces.answer_headers import notes_header
from gateway.surfaces.base import Route, Surface
from gateway.surfaces.surface_handler import MODEL_LOGGED_MAX, SurfaceHandler
from services.domain.prompt_count import COUNT

_NAMES = {COUNT: "input_tokens"}
"""Name of the count in the APIs that have one."""


class TokenCountHandler(SurfaceHandler[Surface]):
    """Handler of the requests of one surface for the number of a prompt's tokens."""

    @property
    def served(self) -> Sequence[Route]:
        """The surface's routes of counts."""
        return self.surface.count_routes

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        surface, sent = self.surface, exchange.sent
        request, _, call = await self.read(exchange, surface.decode_prompt)
        exchange.outcome["model"] = request.spec.model[:MODEL_LOGGED_MAX]
        count = await self.backend.count_prompt(request, call)
        self.remember_key(sent)
        answer_headers = notes_header(count.notes, _NAMES)
        if surface.request_id_header:
            answer_headers[surface.request_id_header] = exchange.request_id
        if exchange.send(200, surface.render_count(count.prompt_token_count), answer_headers):
            await exchange.writer.drained()
