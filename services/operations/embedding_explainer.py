"""Dry run of a call for embeddings: the code of a real call decides, up to the socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from pomogator.operations.v1 import operations_service_pb2 as pb

from services.admission.call_plan import CallPlans
from services.clock import Chance
from services.common.off_loop import off_loop
from services.domain.embeddings import EmbeddingRequest, read_bytes
from services.embeddings.embedding_form import able_targets
from services.embeddings.request_parts import check_size, dimensions_of, split
from services.embeddings.validation import validate
from services.errors import Failure
from services.metering.prices import FREE, Tariff
from services.operations.candidates import add_request, candidate_of, token_prices
from services.operations.model_kind import require_kind
from services.providers.base import ModelRoute, Notes, Target
from services.providers.embeddings.base import EmbeddingDialect
from services.routing.catalog import Catalog
from services.routing.choice import order_targets
from services.routing.health import ChannelHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingExplainer:
    """Explains calls for embeddings by a catalog, its prices, and the health of its channels."""

    catalog: Catalog
    plans: CallPlans
    dialects: Mapping[str, EmbeddingDialect]
    health: ChannelHealth
    chance: Chance

    async def explain(self, request: EmbeddingRequest) -> pb.ExplainEmbeddingsResponse:
        """Return the candidates of the call, each with its first request, and its hold.

        Raise Failure if the call would be refused before routing.
        """
        validate(request)
        spec, is_strict = request.spec, request.parameter_policy == "strict"
        route = self.catalog.resolve_all(spec.model)[0]
        require_kind(route, embeds=True)
        able = able_targets(spec, route.targets, self.dialects, strict=is_strict)
        check_size(spec.entry_count, dimensions_of(spec, able))
        parts = await off_loop(read_bytes(spec), split, spec, able, as_numbers=False)
        tokens = sum(part.tokens for part in parts)
        first = msgspec.structs.replace(request, spec=parts[0].spec)
        tariff = Tariff(self.plans.prices.lookup(route.base_model) or FREE)
        return pb.ExplainEmbeddingsResponse(
            candidates=[
                self._candidate(first, route, target, tokens)
                for target in order_targets(able, self.health, self.chance)
            ],
            prompt_token_count=tokens,
            request_count=len(parts),
            hold_nano_usd=tariff.estimate_nano(tokens, 0),
        )

    def _candidate(
        self, request: EmbeddingRequest, route: ModelRoute, target: Target, tokens: int
    ) -> pb.Candidate:
        prices = token_prices(self.plans.prices, route.base_model, tokens)
        candidate = candidate_of(target, route, self.health, prices)
        notes = Notes(strict=request.parameter_policy == "strict")
        dialect = self.dialects[target.channel.dialect]
        try:
            sent = dialect.encode(request.spec, target, notes, as_numbers=request.wants_numbers)
        except Failure as refusal:
            candidate.refusal = refusal.message
        else:
            add_request(candidate, target, sent, notes.all)
        return candidate
