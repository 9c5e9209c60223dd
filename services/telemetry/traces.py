"""Traces: a span for each RPC, and below that of a completion one for each attempt.

    RPC span (server)         parent: what the caller's `traceparent` says
      attempt (client)        one request to a provider, until its answer is over

Names are those of OpenTelemetry's conventions for RPC and for generative AI
(https://github.com/open-telemetry/semantic-conventions-genai), and `pomogator.…` for what they
have no word for. As a record does, spans hold names, numbers and times: never a prompt, an answer
or a key. Contexts are handed on by hand, never by the library's context variables, which do not
survive a generator that is closed in another task.

Needs the extra `otel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1.usage_pb2 import Usage

from services.clock import Clock
from services.telemetry.calls import CLIENT_GONE, CallRecord
from services.telemetry.tracing import NO_HEADERS, Place

Attributes: TypeAlias = "Mapping[str, str | bool | int | float | Sequence[str]]"

PROPAGATOR = TraceContextTextMapPropagator()

_SERVICE = pb.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name
METHODS: Mapping[str, str] = {
    "create": f"{_SERVICE}/CreateChatCompletion",
    "stream": f"{_SERVICE}/StreamChatCompletion",
}
"""RPCs by what records call them."""

# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: what is the server's fault.
_FAULTS = frozenset(
    code.name
    for code in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
PROVIDERS_FAULTS = frozenset({"upstream_eof", "upstream_stall", "upstream_error"})
"""Ends that are the provider's doing: its attempt failed, though an answer had begun."""

_PORTS = {"http": 80, "https": 443}


class CallTraces:
    """Traces completions."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock

    def begin(self, method: str, metadata: Mapping[str, str]) -> SpannedCall:
        """A completion's trace, which goes on from where the caller's `traceparent` says."""
        span = rpc_span(self._tracer, METHODS[method], metadata)
        return SpannedCall(self._tracer, self._clock, span)

    def begin_rpc(self, method: str, metadata: Mapping[str, str]) -> SpannedRpc:
        """The trace of another RPC."""
        return SpannedRpc(rpc_span(self._tracer, method, metadata))


class SpannedRpc:
    """The span of an RPC that is no completion."""

    __slots__ = ("_span", "trace_id")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        """32 hexadecimal digits."""

    def end(self, code: str, reason: str) -> None:
        """It is over."""
        end_rpc(self._span, code, reason)


class SpannedCall:
    """The spans of one completion."""

    __slots__ = ("_attempt", "_clock", "_context", "_span", "_tracer", "_tried_at", "trace_id")

    def __init__(self, tracer: Tracer, clock: Clock, span: Span) -> None:
        self._tracer = tracer
        self._clock = clock
        self._span = span
        self._context = set_span_in_context(span, Context())
        self._attempt: Span | None = None
        self._tried_at = 0.0
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        """32 hexadecimal digits."""

    def tried(self, place: Place) -> Mapping[str, str]:
        """An attempt begins. Its provider learns of the trace only if the channel says so."""
        channel = place.channel
        self._tried_at = self._clock.now()
        self._attempt = attempt = self._tracer.start_span(
            f"chat {place.model}",
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": channel.dialect,
                "gen_ai.request.model": place.model,
                "pomogator.channel": channel.name,
                **_address(channel.base_url),
            },
        )
        return headers_of(attempt) if channel.trace_context else NO_HEADERS

    def failed(self, reason: str) -> None:
        """The attempt failed before it had an answer."""
        if self._attempt is not None:
            self._attempt.set_attribute("error.type", reason)
            self._attempt.set_status(StatusCode.ERROR)
            self._attempt.end()
            self._attempt = None

    def ended(self, record: CallRecord) -> None:
        """The call is over. An attempt that is drained is not: nothing is settled yet."""
        if record.settlement:
            self.settled(record)
        span = self._span
        if span.is_recording():
            span.set_attributes(_of_call(record))
        end_rpc(span, record.code, record.reason)

    def settled(self, record: CallRecord) -> None:
        """The attempt is over, and what it took is known."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        if attempt.is_recording():
            attempt.set_attributes(_of_attempt(record))
            if record.begun_at:
                # By the convention's word: in seconds, and from the request to the provider on.
                after_s = record.begun_at - self._tried_at
                attempt.set_attribute("gen_ai.response.time_to_first_chunk", after_s)
            if record.end in PROVIDERS_FAULTS:
                attempt.set_status(StatusCode.ERROR)
        attempt.end()


def rpc_span(tracer: Tracer, method: str, metadata: Mapping[str, str]) -> Span:
    """The span of an RPC that came in. `method` is `package.Service/Method`."""
    parent = PROPAGATOR.extract(metadata, context=Context())
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    return tracer.start_span(method, parent, SpanKind.SERVER, attributes)


def end_rpc(span: Span, code: str, reason: str) -> None:
    """The RPC is over, with this status and, where it failed, for this reason of the contract."""
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code)
        if code != grpc.StatusCode.OK.name:
            span.set_attribute("error.type", reason or code)
        if code in _FAULTS:
            span.set_status(StatusCode.ERROR)
    span.end()


def headers_of(span: Span) -> Mapping[str, str]:
    """`traceparent` and `tracestate`, for whoever is to go on below the span."""
    headers: dict[str, str] = {}
    PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
    return headers


def _address(base_url: str) -> Attributes:
    """The host alone: a path might name a customer."""
    url = urlsplit(base_url)
    port = url.port or _PORTS.get(url.scheme, 0)
    return {"server.address": url.hostname or "", "server.port": port} if url.hostname else {}


def _of_call(record: CallRecord) -> Attributes:
    known = {
        "pomogator.request_id": record.request_id,
        "pomogator.key_id": record.key_id,
        "pomogator.account": record.account,
        "pomogator.model": record.model,
        "pomogator.end": record.end,
    }
    attributes: dict[str, Any] = {name: value for name, value in known.items() if value}
    attributes["pomogator.attempts"] = len(record.attempts)
    return attributes


def _of_attempt(record: CallRecord) -> Attributes:
    attributes: dict[str, Any] = {}
    if record.usage is not None:
        attributes |= _of_usage(record.usage)
        attributes["pomogator.cost_nano_usd"] = record.charge_nano
    if record.finish:
        attributes["gen_ai.response.finish_reasons"] = (record.finish,)
    else:
        attributes["error.type"] = record.reason or record.end or CLIENT_GONE
    return attributes


def _of_usage(usage: Usage) -> Attributes:
    counts = {
        "gen_ai.usage.input_tokens": usage.prompt_token_count,
        "gen_ai.usage.output_tokens": usage.completion_token_count,
    }
    parts = {
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_token_count,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_token_count,
        "gen_ai.usage.reasoning.output_tokens": usage.thinking_token_count,
    }
    return counts | {name: count for name, count in parts.items() if count}
