"""Test of a channel: one small request to exactly one target, past routing, limits and billing.

A success closes the circuit breaker, as a probe does. A failure does not count against the channel,
and the latency of so small an answer does not change the channel's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from pomogator.operations.v1 import operations_service_pb2 as pb

from services.accounts.proto_fields import not_found
from services.clock import Clock
from services.common.contract.chat import USAGE
from services.common.plain_metrics import ByLabels, PlainCounter, PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure, UpstreamError, invalid
from services.metering.prices import Price, Tariff
from services.metering.tokens import TokenCounter
from services.operations.probe_requests import ProbeCompletion, ProbeEmbedding, ProbeRequest
from services.providers.base import Dialect, Target
from services.providers.embeddings.base import EmbeddingDialect
from services.providers.upstream import HTTP_OK, Upstream, UpstreamAnswer
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth

TIMEOUT_S, TIMEOUT_MAX_S = 30.0, 120.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Causes:
    """Cause of the last failure, for the result of the test alone: not for `ChannelFailures`."""

    last: str = ""

    def add(self, target: Target, error: UpstreamError, cause: str = "") -> None:  # noqa: ARG002
        """Keep the cause."""
        self.last = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTester:
    """Sends the requests of tests."""

    upstream: Upstream
    health: ChannelHealth
    clock: Clock
    dialects: Mapping[str, Dialect]
    embedding_dialects: Mapping[str, EmbeddingDialect]
    counter: TokenCounter
    """Counts tokens that providers do not report."""
    counts: ByLabels[PlainCounter]
    """Tests, by channel and reason."""

    async def run(
        self, target: Target, price: Price | None, timeout_s: float, request_id: str
    ) -> pb.TestChannelResponse:
        """Test a target. Raise Failure if its dialect has no form for the request."""
        test = pb.TestChannelResponse(
            model=target.public_model, provider_model=target.model, dialect=target.channel.dialect
        )
        request = self._request(target)
        causes = _Causes()
        answer = self.upstream.answer(
            request.encoded(), target, request.api, request.decoder, failures=causes
        )
        started_at = self.clock.now()
        try:
            async with asyncio.timeout(timeout_s):
                await self._read(answer, request, test, started_at)
            test.http_status = HTTP_OK
            self.health.attempt_succeeded(target)
        except UpstreamError as error:
            test.reason, test.http_status = str(error.reason), error.status
            test.message = error.provider_message or error.shown_message
        except TimeoutError:
            test.reason = str(ErrorReason.DEADLINE)
            test.message = "The time of the test was over."
        finally:
            answer.close()
        test.duration.FromMicroseconds(round((self.clock.now() - started_at) * 1e6))
        test.cause = causes.last
        usage = request.usage()
        if usage is not None:
            USAGE.fill(usage, test.usage)
        if price is not None and usage is not None:
            test.cost_nano_usd = Tariff(price).cost_nano(usage)
        self._record(test, target, request_id)
        return test

    def _request(self, target: Target) -> ProbeRequest:
        embeds = target.capabilities.embeddings is not None
        if target.channel.dialect not in (self.embedding_dialects if embeds else self.dialects):
            message = "The channel's dialect does not serve models of this kind."
            raise Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param="model")
        if embeds:
            return ProbeEmbedding(target, self.embedding_dialects)
        return ProbeCompletion(target, self.dialects, self.counter)

    async def _read(
        self,
        answer: UpstreamAnswer,
        request: ProbeRequest,
        test: pb.TestChannelResponse,
        started_at: float,
    ) -> None:
        """Read the answer to its end."""
        first = await answer.first()
        test.time_to_first_token.FromMicroseconds(round((self.clock.now() - started_at) * 1e6))
        request.add(first)
        async for batch in answer:
            request.add(batch)

    def _record(self, test: pb.TestChannelResponse, target: Target, request_id: str) -> None:
        self.counts[target.channel.name, test.reason].value += 1
        begun = test.HasField("time_to_first_token")
        fields = {
            "request_id": request_id,
            "channel": target.channel.name,
            "model": test.model,
            "key_number": target.key_number,
            "status": test.http_status,
            "reason": test.reason,
            "cause": test.cause,
            "ttft_ms": _ms(test.time_to_first_token) if begun else None,
            "duration_ms": _ms(test.duration),
            "prompt_tokens": test.usage.prompt_token_count,
            "completion_tokens": test.usage.completion_token_count,
            "cost_nano_usd": test.cost_nano_usd if test.HasField("cost_nano_usd") else None,
        }
        log.info("channel.tested", extra=fields)


def _ms(duration: Duration) -> float:
    return round(duration.ToMicroseconds() / 1000, 1)


def declare_test_counters(counters: PlainMetrics) -> ByLabels[PlainCounter]:
    """Declare the metric of tests, and return its counters."""
    return counters.counter(
        "channel_tests_total",
        "Tests of channels by operators. `reason` is empty for a success.",
        "channel", "reason",
    )  # fmt: skip


def tested_target(request: pb.TestChannelRequest, catalog: Catalog) -> Target:
    """Return the target that a request names. Raise Failure NOT_FOUND, MODEL_NOT_FOUND."""
    found = {
        (model, target.key_number): target
        for (channel, model), targets in catalog.targets_by_channel.items()
        for target in targets
        if channel == request.channel
    }
    if not found:
        raise not_found("channel", "There is no channel with this name.")
    first = next(iter(found.values()))
    model = request.model or next(iter(first.channel.models))
    name = catalog.resolve(model).base_model
    if (name, 0) not in found:
        raise not_found("model", "The channel does not serve this model.")
    target = found.get((name, request.key_number))
    if target is None:
        raise not_found("key_number", "The channel has no key with this index.")
    return target


def timeout_of(request: pb.TestChannelRequest) -> float:
    """Return how long a test may take, in seconds. Raise Failure INVALID_FIELD."""
    if not request.HasField("timeout"):
        return TIMEOUT_S
    timeout_s = request.timeout.seconds + request.timeout.nanos / 1e9
    if not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise invalid("timeout", f"timeout must be more than 0s and at most {TIMEOUT_MAX_S:g}s")
    return timeout_s
