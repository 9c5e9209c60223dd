"""Dry run of a call: the code of a real call decides, up to the socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.admission.answer_limit import estimate_max_tokens
from services.admission.call_plan import CACHED_PROMPT_TOKENS_MIN, CallPlans, Unpinned
from services.admission.prompt_limit import media_bound
from services.clock import Chance
from services.common.contract.chat import NOTE
from services.common.request_headers import session_id
from services.completions.validation import validate
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, ParameterPolicy
from services.errors import Failure
from services.metering.prices import FREE, estimate_nano
from services.metering.tokens import estimate_prompt
from services.operations.channel_control import disablement_to_proto
from services.providers.base import Dialect, ModelRoute, Notes, Target
from services.routing.affinity import SessionAffinity, SessionPin
from services.routing.catalog import Catalog
from services.routing.choice import order_targets, score
from services.routing.dialect_choice import routes_for
from services.routing.health import ChannelHealth

BREAKER_STATES: Sequence[pb.BreakerState.ValueType] = (
    pb.BREAKER_STATE_CLOSED,
    pb.BREAKER_STATE_HALF_OPEN,
    pb.BREAKER_STATE_OPEN,
)
"""States by the number that `ChannelHealth.breaker_state` returns."""


AFFINITIES: Mapping[Unpinned, pb.Affinity.ValueType] = {
    "": pb.AFFINITY_UNSPECIFIED,
    "off": pb.AFFINITY_OFF,
    "no_choice": pb.AFFINITY_NO_CHOICE,
    "no_cache_price": pb.AFFINITY_NO_CACHE_PRICE,
    "short_prompt": pb.AFFINITY_SHORT_PROMPT,
}


class Session(NamedTuple):
    """Session of the call to explain."""

    account: str = ""
    id: str = ""


ANY_SESSION = Session()


class _Asked(NamedTuple):
    """A call to one of its routes."""

    spec: ChatCompletionSpec
    route: ModelRoute
    pin: SessionPin | None
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """Explains calls by a catalog, its prices, and the health of its channels."""

    catalog: Catalog
    plans: CallPlans
    dialects: Mapping[str, Dialect]
    health: ChannelHealth
    chance: Chance
    sessions: SessionAffinity | None = None
    """Sessions of the running server. None: none runs, so chance chooses."""

    def explain(
        self,
        spec: ChatCompletionSpec,
        policy: ParameterPolicy = "",
        session: Session = ANY_SESSION,
    ) -> pb.ExplainChatCompletionResponse:
        """Return the candidates of the call, with their requests, and the amount of its hold.

        Raise Failure if the call would be refused before routing.
        """
        validate(spec, policy)
        routes = routes_for(spec, self.catalog.resolve_all(spec.model))
        if routes[0].capabilities.embeddings is not None:
            message = "This model computes embeddings, of which there is no dry run."
            raise Failure(ErrorReason.MODEL_NOT_FOUND, message, param="model")
        prompt_tokens = estimate_prompt(spec)
        affinity, pin = self._pin(routes, spec, session, prompt_tokens)
        media = media_bound(spec)
        most = [estimate_max_tokens(spec, one.targets) for one in routes]
        prices = [self.plans.prices.lookup(one.base_model) or FREE for one in routes]
        return pb.ExplainChatCompletionResponse(
            candidates=[
                self._candidate(
                    _Asked(spec, one, pin, prompt_tokens), target, strict=policy == "strict"
                )
                for one in routes
                for target in order_targets(one.targets, self.health, self.chance, pin)
            ],
            prompt_token_count=prompt_tokens,
            max_token_count=max(most),
            affinity=affinity,
            hold_nano_usd=max(
                estimate_nano(prompt_tokens + media(one.targets), tokens, price)
                for one, tokens, price in zip(routes, most, prices, strict=True)
            ),
        )

    def _pin(
        self,
        routes: Sequence[ModelRoute],
        spec: ChatCompletionSpec,
        session: Session,
        prompt_tokens: int,
    ) -> tuple[pb.Affinity.ValueType, SessionPin | None]:
        """Return the pin of the call, and what it is by; or why the call has none."""
        unpinned = self.plans.unpinned(routes)
        if not unpinned and prompt_tokens < CACHED_PROMPT_TOKENS_MIN:
            unpinned = "short_prompt"
        if unpinned or self.sessions is None:
            return AFFINITIES[unpinned], None
        named = session.id or session_id({}, spec.user, spec.prompt_cache_key)
        pin = self.sessions.pin(session.account, routes[0].base_model, named, spec)
        return pb.AFFINITY_SESSION if named else pb.AFFINITY_CONVERSATION, pin

    def _candidate(self, asked: _Asked, target: Target, *, strict: bool) -> pb.Candidate:
        spec, route = asked.spec, asked.route
        candidate = pb.Candidate(
            model=route.model,
            channel=target.channel.name,
            key_number=target.key_number,
            priority=target.channel.priority,
            weight=target.weight,
            score=score(target, route.targets, self.health),
            breaker_state=BREAKER_STATES[self.health.breaker_state(target)],
            prices=self._token_prices(route, asked.prompt_tokens),
            dialect=target.channel.dialect,
            remembered=asked.pin is not None and asked.pin.remembers(target),
        )
        if latency_s := self.health.latency_s(target):
            candidate.latency.FromMilliseconds(round(latency_s * 1000))
        if disablement := self.health.disabled.get(target.channel.name):
            candidate.disablement.CopyFrom(disablement_to_proto(disablement))
        notes = Notes(strict=strict)
        try:
            request = self.dialects[target.channel.dialect].encode(spec, target, notes)
        except Failure as refusal:
            candidate.refusal = refusal.message
            return candidate
        candidate.url = target.channel.base_url + target.channel.with_query(request.path)
        candidate.body = request.body.decode()
        for note in notes.all:
            NOTE.fill(note, candidate.notes.add())
        return candidate

    def _token_prices(self, route: ModelRoute, prompt_tokens: int) -> pb.TokenPrices | None:
        price = self.plans.prices.lookup(route.base_model)
        if price is None:
            return None
        rates = price.rates(prompt_tokens)
        return pb.TokenPrices(
            prompt_pico_usd=rates.prompt,
            cache_read_pico_usd=rates.cache_read,
            cache_write_pico_usd=rates.cache_write,
            cache_write_1h_pico_usd=rates.cache_write_1h,
            completion_pico_usd=rates.completion,
            thinking_pico_usd=rates.thinking,
            prompt_audio_pico_usd=rates.prompt_audio,
            prompt_image_pico_usd=rates.prompt_image,
            completion_audio_pico_usd=rates.completion_audio,
            completion_image_pico_usd=rates.completion_image,
        )
