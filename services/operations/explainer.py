"""Dry run of a call: the code of a real call decides, up to the socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.admission.call_plan import CACHED_PROMPT_TOKENS_MIN, AnswerBound, CallPlans, Unpinned
from services.admission.prompt_limit import media_bound
from services.clock import Chance
from services.common.request_headers import session_id
from services.completions.validation import validate
from services.domain.spec import ChatCompletionSpec, ParameterPolicy
from services.errors import Failure
from services.metering.prices import FREE, Tariff
from services.metering.tokens import estimate_prompt
from services.operations.candidates import add_request, candidate_of, token_prices
from services.operations.model_kind import require_kind
from services.providers.base import Dialect, ModelRoute, Notes, Target
from services.routing.affinity import SessionAffinity, SessionPin
from services.routing.catalog import Catalog
from services.routing.choice import order_targets
from services.routing.dialect_choice import routes_for
from services.routing.health import ChannelHealth

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
        self, spec: ChatCompletionSpec, policy: ParameterPolicy = "", session: Session = ANY_SESSION
    ) -> pb.ExplainChatCompletionResponse:
        """Return the candidates of the call, with their requests, and the amount of its hold.

        Raise Failure if the call would be refused before routing.
        """
        validate(spec, policy)
        routes = routes_for(
            spec, self.catalog.resolve_all(spec.model), lacking=self.health.lacking_responses()
        )
        require_kind(routes[0], embeds=False)
        prompt_tokens = estimate_prompt(spec)
        affinity, pin = self._pin(routes, spec, session, prompt_tokens)
        media = media_bound(spec)
        most = [AnswerBound.of(one.targets).tokens(spec) for one in routes]
        prices = self.plans.prices
        tariffs = [Tariff(prices.lookup(one.base_model) or FREE) for one in routes]
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
                tariff.estimate_nano(prompt_tokens + media(one.targets), tokens)
                for one, tokens, tariff in zip(routes, most, tariffs, strict=True)
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
        prices = token_prices(self.plans.prices, route.base_model, asked.prompt_tokens)
        candidate = candidate_of(target, route, self.health, prices)
        candidate.remembered = asked.pin is not None and asked.pin.remembers(target)
        notes = Notes(strict=strict)
        try:
            request = self.dialects[target.channel.dialect].encode(spec, target, notes)
        except Failure as refusal:
            candidate.refusal = refusal.message
        else:
            add_request(candidate, target, request, notes.all)
        return candidate
