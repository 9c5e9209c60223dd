"""Spans of calls: one for each RPC, and below that of a completion one for each attempt.

    RPC span (server)         its parent is the caller's `traceparent`
      attempt (client)        one request to a provider, until its answer has ended

Names are those of OpenTelemetry's conventions for RPC and for generative AI
(https://github.com/open-telemetry/semantic-conventions-genai), and `pomogator.…` where these have
none. Spans hold names, numbers and times, like records: never a prompt, an answer or a key.
Contexts are passed as arguments. The library's context variables would be lost when a generator is
closed in another task.

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

from services.clock import Clock
from services.common.call_names import CHAT_SERVICE, EMBEDDING_SERVICE
from services.domain.usage import Usage
from services.telemetry.call_tracing import NO_HEADERS, TracedTarget
from services.telemetry.calls import CLIENT_GONE, CallRecord

Attributes: TypeAlias = "Mapping[str, str | bool | int | float | Sequence[str]]"

PROPAGATOR = TraceContextTextMapPropagator()

METHODS: Mapping[str, str] = {
    "create": f"{CHAT_SERVICE}/CreateChatCompletion",
    "stream": f"{CHAT_SERVICE}/StreamChatCompletion",
    "embed": f"{EMBEDDING_SERVICE}/CreateEmbeddings",
}
"""RPCs by `CallRecord.method`."""

OPERATIONS: Mapping[str, str] = {"embed": "embeddings"}
"""Values of `gen_ai.operation.name` by `CallRecord.method`, where they are not `chat`."""

# Statuses that are errors of the server: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
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
PROVIDER_FAULTS = frozenset({"upstream_eof", "upstream_stall", "upstream_error"})
"""Ends that the provider caused: its attempt failed after the answer had begun."""

_PORTS = {"http": 80, "https": 443}


class CallTracer:
    """Starts the spans of calls."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock

    def begin(self, method: str, metadata: Mapping[str, str]) -> CallSpans:
        """Start the span of such a call, below the caller's `traceparent`."""
        span = rpc_span(self._tracer, METHODS[method], metadata)
        return CallSpans(self._tracer, self._clock, span, OPERATIONS.get(method, "chat"))

    def begin_rpc(self, method: str, metadata: Mapping[str, str]) -> RpcSpan:
        """Start the span of another RPC."""
        return RpcSpan(rpc_span(self._tracer, method, metadata))


class RpcSpan:
    """The span of an RPC other than completions."""

    __slots__ = ("_span", "trace_id")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        """32 hexadecimal digits."""

    def end(self, code: str, reason: str) -> None:
        """End the span with a status and, for a failure, its reason in the contract."""
        end_rpc(self._span, code, reason)


class CallSpans:
    """The spans of one completion, or of one call for embeddings."""

    __slots__ = (
        "_attempt",
        "_attempt_at",
        "_clock",
        "_context",
        "_operation",
        "_span",
        "_tracer",
        "trace_id",
    )

    def __init__(self, tracer: Tracer, clock: Clock, span: Span, operation: str) -> None:
        self._tracer = tracer
        self._clock = clock
        self._span = span
        self._operation = operation
        self._context = set_span_in_context(span, Context())
        self._attempt: Span | None = None
        self._attempt_at = 0.0
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        """32 hexadecimal digits."""

    def start_attempt(self, target: TracedTarget) -> Mapping[str, str]:
        """Start the span of an attempt.

        Returns the headers that pass the trace to the provider, if the channel allows it.
        """
        channel = target.channel
        self._attempt_at = self._clock.now()
        self._attempt = attempt = self._tracer.start_span(
            f"{self._operation} {target.model}",
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": self._operation,
                "gen_ai.provider.name": channel.dialect,
                "gen_ai.request.model": target.model,
                "pomogator.channel": channel.name,
                **_address(channel.base_url),
            },
        )
        return headers_of(attempt) if channel.trace_context else NO_HEADERS

    def fail_attempt(self, reason: str) -> None:
        """End the span of an attempt that failed before its answer began."""
        if self._attempt is not None:
            self._attempt.set_attribute("error.type", reason)
            self._attempt.set_status(StatusCode.ERROR)
            self._attempt.end()
            self._attempt = None

    def ended(self, record: CallRecord) -> None:
        """End the span of the call. The span of a drained attempt ends later."""
        if record.settlement:
            self.settled(record)
        span = self._span
        if span.is_recording():
            span.set_attributes(_of_call(record))
        end_rpc(span, record.code, record.reason)

    def settled(self, record: CallRecord) -> None:
        """End the span of the attempt, whose usage is known."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        if attempt.is_recording():
            attempt.set_attributes(_of_attempt(record))
            if record.begun_at:
                # The convention counts in seconds from the request to the provider.
                after_s = record.begun_at - self._attempt_at
                attempt.set_attribute("gen_ai.response.time_to_first_chunk", after_s)
            if record.end in PROVIDER_FAULTS:
                attempt.set_status(StatusCode.ERROR)
        attempt.end()


def rpc_span(tracer: Tracer, method: str, metadata: Mapping[str, str]) -> Span:
    """Start the span of an incoming RPC. `method` is `package.Service/Method`."""
    parent = PROPAGATOR.extract(metadata, context=Context())
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    return tracer.start_span(method, parent, SpanKind.SERVER, attributes)


def end_rpc(span: Span, code: str, reason: str) -> None:
    """End the span of an RPC with its status and, for a failure, its reason in the contract."""
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code)
        if code != grpc.StatusCode.OK.name:
            span.set_attribute("error.type", reason or code)
        if code in _FAULTS:
            span.set_status(StatusCode.ERROR)
    span.end()


def headers_of(span: Span) -> Mapping[str, str]:
    """Return `traceparent` and `tracestate` for spans below this one."""
    headers: dict[str, str] = {}
    PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
    return headers


def _address(base_url: str) -> Attributes:
    """Attributes of the host alone: a path might name a customer."""
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
