"""Raw calls: what is read of a request in the form of another API, before it is routed.

A request that no target of its model takes as it is, is translated at once, and is from then on a
call like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from msgspec.structs import replace

from services.common.json_places import SKIMMED
from services.common.off_loop import off_loop
from services.common.request_headers import session_id
from services.completions.completion_call import CompletionCall
from services.completions.validation import validate
from services.domain.error_reason import ErrorReason
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import ChatCompletionSpec, ParameterPolicy
from services.errors import Failure
from services.providers.raw_call import RawCall
from services.providers.raw_lane import RawLane

Translate = Callable[[RawRequest], ChatCompletionSpec]
"""Decodes a whole request. Raises Failure."""


class RawCalls:
    """Reader of raw requests."""

    def __init__(
        self, lanes: Mapping[str, RawLane], translations: Mapping[RawApi, Translate]
    ) -> None:
        """`lanes` are those of the dialects by name, `translations` those of the APIs."""
        self._lanes: dict[RawApi, dict[str, RawLane]] = {}
        for dialect, lane in lanes.items():
            self._lanes.setdefault(lane.api, {})[dialect] = lane
        self._translations = translations

    async def read(self, call: CompletionCall, raw: RawRequest, *, stream: bool) -> None:
        """Read the request of a call. Sets its spec, and `call.raw` where a target takes it.

        The spec is whole where the call needs that: without a lane, and for contents whose tokens
        do not follow from their size. Raises Failure.
        """
        lanes = self._lanes.get(raw.api)
        if lanes is None:
            raise Failure(ErrorReason.INVALID_FIELD, "The API is not known.", param="raw.api")
        reader = next(iter(lanes.values()))
        facts = await off_loop(len(raw.body) // SKIMMED, reader.read, raw)
        if facts.stream != stream:
            message = "`stream` of the body must be as the method says."
            raise Failure(ErrorReason.INVALID_FIELD, message, param="raw.body")
        plan = call.snapshot.plans.of(call.caller, facts.spec.model)
        policy = call.request.parameter_policy
        opened = RawCall(
            facts=facts,
            lanes=lanes,
            translate=partial(_translated, self._translations[raw.api], raw, policy),
            sends_provider_tools=plan.sends_provider_tools,
        )
        targets = (target for route in plan.routes for target in route.targets)
        passes = any(map(opened.passes_to, targets))
        is_whole = facts.has_media or not passes
        spec = await off_loop(opened.size, opened.translated) if is_whole else facts.spec
        session = call.request.session_id or session_id({}, facts.spec.user)
        call.request = replace(call.request, spec=spec, session_id=session)
        call.raw = opened if passes else None


def _translated(
    translate: Translate, raw: RawRequest, policy: ParameterPolicy
) -> ChatCompletionSpec:
    spec = translate(raw)
    validate(spec, policy)
    return spec
