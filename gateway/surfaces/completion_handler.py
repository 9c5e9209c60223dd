"""Completion handler: decode, call, render, for every surface.

The call to the service ends with the client's request: a disconnect cancels the call.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence

from msgspec.structs import replace

from gateway.errors import ApiError, internal
from gateway.http.exchange import Exchange
from gateway.surfaces.answer_headers import COST_HEADER, notes_header
from gateway.surfaces.base import Route, StreamRenderer, Surface
from gateway.surfaces.event_stream import EventStream
from gateway.surfaces.surface_handler import MODEL_LOGGED_MAX, SurfaceHandler
from services.common.money import exact_usd
from services.common.request_headers import session_of_body
from services.domain.events import Batch
from services.domain.spec import CompletionRequest

_log = logging.getLogger(__name__)


class CompletionHandler(SurfaceHandler[Surface]):
    """Handler of the completion requests of one surface, which is one inbound API."""

    @property
    def served(self) -> Sequence[Route]:
        """The surface's routes of completions."""
        return self.surface.routes

    async def handle(self, exchange: Exchange) -> Awaitable[None] | None:
        """Answer one request whole, or return its stream.

        Raises ApiError: it failed before anything was sent. Raises ConnectionError: the client is
        gone.
        """
        surface, sent = self.surface, exchange.sent
        request, options, call = await self.read(
            exchange, surface.decode, surface.decode_large, surface.loop_bytes_max
        )
        spec, streams = request.spec, request.stream
        exchange.outcome.update(model=spec.model[:MODEL_LOGGED_MAX], stream=streams)
        session_id = options.session_id
        if not session_id and (spec.user or spec.prompt_cache_key):
            session_id = session_of_body(spec.user, spec.prompt_cache_key)
        asked = CompletionRequest(
            spec=spec,
            parameter_policy=options.parameter_policy,
            counts_prompt=streams and surface.counts_prompt,
            session_id=session_id,
            raw=request.raw,
            texts=request.texts,
        )
        answer_headers: dict[str, str] = {}
        if surface.request_id_header:
            answer_headers[surface.request_id_header] = exchange.request_id
        if streams:
            call = replace(call, deadline_s=options.stream_deadline_s)
            batches = self.backend.stream(asked, call, answer_headers)
            return self._stream(exchange, request.stream_renderer(), batches, answer_headers)
        completion = await self.backend.whole(asked, call, answer_headers)
        if exchange.started > sent.key_fresh_until:
            self.remember_key(sent)
        if completion.notes:
            answer_headers |= notes_header(completion.notes, surface.field_names)
        if completion.cost_nano_usd is not None:
            answer_headers[COST_HEADER] = exact_usd(completion.cost_nano_usd)
        if exchange.send(200, request.render(completion, answer_headers), answer_headers):
            await exchange.writer.drained()
        return None

    async def _stream(
        self,
        exchange: Exchange,
        renderer: StreamRenderer,
        batches: AsyncGenerator[Batch, None],
        headers: dict[str, str],
    ) -> None:
        surface = self.surface
        stream = EventStream(exchange, self.config, surface.framing, headers)
        try:
            last = await stream.relay(batches, renderer, surface.field_names)
            if exchange.started > exchange.sent.key_fresh_until:
                self.remember_key(exchange.sent)
        except ApiError as error:
            if not stream.begun:
                if not surface.begins_failed(exchange.sent.headers, error):
                    raise
                headers.update(error.headers())
                stream.begin()
            exchange.outcome["code"] = error.code
            last = renderer.error(error)
        except ConnectionError:
            raise  # The client is gone.
        except Exception:
            if not stream.begun:
                raise
            # The status has been sent: the error border could not report the failure.
            request_id = exchange.request_id
            _log.exception("stream.failed", extra={"request_id": request_id})
            last = renderer.error(internal(request_id))
        await stream.end(last)
