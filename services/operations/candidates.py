"""Targets as operators see them: with their state, prices and requests."""

from __future__ import annotations

from collections.abc import Sequence

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.common.contract.chat import NOTE
from services.domain.events import Note
from services.metering.price_list import PriceList
from services.metering.prices import Rates
from services.operations.channel_control import disablement_to_proto
from services.providers.base import ModelRoute, Target, UpstreamRequest
from services.providers.request_heads import path_with_query
from services.routing.choice import score
from services.routing.health import ChannelHealth

BREAKER_STATES: Sequence[pb.BreakerState.ValueType] = (
    pb.BREAKER_STATE_CLOSED,
    pb.BREAKER_STATE_HALF_OPEN,
    pb.BREAKER_STATE_OPEN,
)
"""States by the number that `ChannelHealth.breaker_state` returns."""


def candidate_of(
    target: Target, route: ModelRoute, health: ChannelHealth, prices: pb.TokenPrices | None
) -> pb.Candidate:
    """Return a target of a route, without a request."""
    candidate = pb.Candidate(prices=prices, dialect=target.channel.dialect)
    describe(candidate, target, route, health)
    return candidate


def describe(
    found: pb.Candidate | pb.ChannelStatus, target: Target, route: ModelRoute, health: ChannelHealth
) -> None:
    """Write a target of a route into a message, with its place and its health."""
    found.model, found.channel = route.model, target.channel.name
    found.key_number = target.key_number
    found.priority, found.weight = target.channel.priority, target.weight
    found.score = score(target, route.targets, health)
    found.breaker_state = BREAKER_STATES[health.breaker_state(target)]
    if latency_s := health.latency_s(target):
        found.latency.FromMilliseconds(round(latency_s * 1000))
    if disablement := health.disabled.get(target.channel.name):
        found.disablement.CopyFrom(disablement_to_proto(disablement))


def add_request(
    candidate: pb.Candidate, target: Target, request: UpstreamRequest, notes: Sequence[Note]
) -> None:
    """Add the request that the target would get."""
    candidate.url = target.channel.base_url + path_with_query(target.channel, request.path)
    candidate.body = request.body.decode()
    for note in notes:
        NOTE.fill(note, candidate.notes.add())


def token_prices(prices: PriceList, model: str, prompt_tokens: int) -> pb.TokenPrices | None:
    """Return the prices of a model for a prompt of this length. None: it has none."""
    price = prices.lookup(model)
    if price is None:
        return None
    rates = price.rates(prompt_tokens)
    return pb.TokenPrices(
        **{f"{name}_pico_usd": getattr(rates, name) for name in Rates.__struct_fields__}
    )
