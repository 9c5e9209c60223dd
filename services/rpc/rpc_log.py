"""One log line, metric and span per call of a method that asks no provider.

Completions and embeddings have records of their own (`services.telemetry.calls`). All other calls
are rare, and most are operators': who changed what is found in the log by the request's ID, which
callers learn from the initial metadata where they have set none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from services.clock import Clock
from services.common.call_names import METERED
from services.common.plain_metrics import PlainMetrics
from services.errors import Failure
from services.rpc.call_context import (
    Context,
    Continuation,
    Handler,
    current_request_id,
    metadata_of,
    unknown_request_id,
)

if TYPE_CHECKING:
    from services.telemetry.call_spans import CallTracer

log = logging.getLogger(__name__)

OURS = "/pomogator."


class RpcLog(grpc.aio.ServerInterceptor):
    """Records each call of a Pomogator method with one answer. Stands behind the border."""

    def __init__(
        self, clock: Clock, counters: PlainMetrics, tracer: CallTracer | None = None
    ) -> None:
        """Declares the metric of the calls among `counters`."""
        self._clock = clock
        self.ended = counters.counter(
            "rpcs_total", "Calls that have ended and were no completions.", "method", "code"
        )
        """Ended calls, by method (`Service/Method`) and status code."""
        self._tracer = tracer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the method's handler, recorded if the method is one of those."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        ours = path.startswith(OURS) and not path.startswith(METERED)
        if handler is None or not ours or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._recorded(path.removeprefix("/"), handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _recorded(self, method: str, handle: Any) -> Callable[..., Awaitable[object]]:
        async def recorded(request: object, context: Context) -> object:
            begun_at = self._clock.now()
            metadata = metadata_of(context)
            span = None if self._tracer is None else self._tracer.begin_rpc(method, metadata)
            code, reason = "INTERNAL", "INTERNAL"
            try:
                if told := unknown_request_id(context):
                    await context.send_initial_metadata(told)
                answer: object = await handle(request, context)
                code, reason = "OK", ""
            except Failure as failure:
                code, reason = failure.code.name, failure.reason
                raise
            except asyncio.CancelledError:
                code, reason = "CANCELLED", ""
                raise
            else:
                return answer
            finally:
                self.ended[method.removeprefix("pomogator.").rpartition(".")[2], code].value += 1
                if span is not None:
                    span.end(code, reason)
                line = {
                    "request_id": current_request_id(),
                    "method": method,
                    "code": code,
                    "reason": reason,
                    "duration_ms": round((self._clock.now() - begun_at) * 1000, 1),
                    "trace_id": span.trace_id if span else "",
                }
                log.info("rpc.ended", extra=line)

        return recorded
