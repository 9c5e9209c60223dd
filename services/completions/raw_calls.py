"""Raw calls: what is read of a request in the form of another API, before it is routed.

A request that no target of its model takes as it is, is translated at once, and is from then on a
call like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from msgspec.structs import replace

from services.admission.call_plan import CallPlan, CallPlans
from services.admission.keyring import Caller
from services.common.json_places import SKIMMED
from services.common.off_loop import off_loop
from services.common.request_headers import session_id
from services.completions.completion_call import CompletionCall
from services.completions.validation import validate
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import ChatCompletionSpec, ParameterPolicy
from services.errors import invalid
from services.providers.base import Target
from services.providers.raw_call import RawCall
from services.providers.raw_lane import RawFacts, RawLane
from services.providers.raw_reading import check_body
from services.routing.dialect_choice import RESPONSES, over_responses

Translate = Callable[[RawRequest], ChatCompletionSpec]
"""Decodes a whole request. Raises Failure."""


class RawCalls:
    """Reader of raw requests."""

    def __init__(
        self,
        lanes: Mapping[str, RawLane],
        translations: Mapping[RawApi, Translate],
        prompt_translations: Mapping[RawApi, Translate],
    ) -> None:
        """`lanes` are those of the dialects by name, `translations` those of the APIs.

        `prompt_translations` are those of their requests for the tokens of a prompt.
        """
        self._lanes: dict[RawApi, dict[str, RawLane]] = {}
        for dialect, lane in lanes.items():
            self._lanes.setdefault(lane.api, {})[dialect] = lane
        self._translations = translations
        self._prompt_translations = prompt_translations

    async def read(self, call: CompletionCall, raw: RawRequest, *, stream: bool) -> CallPlan:
        """Read the request of a call, and return its plan.

        Sets the spec of the call, and `call.raw` where a target takes the request.

        The spec is whole where the call needs that: without a lane, and for contents whose tokens
        do not follow from their size. Raises Failure.
        """
        facts = await off_loop(len(raw.body) // SKIMMED, self._facts, raw)
        if facts.stream != stream:
            raise invalid("raw.body", "`stream` of the body must be as the method says.")
        plan = call.snapshot.plans.of(call.caller, facts.spec.model)
        policy = call.request.parameter_policy
        translate = partial(_translated, self._translations[raw.api], raw, policy)
        opened = self._opened(facts, plan, translate)
        passes = _passes(opened, plan)
        is_whole = facts.has_media or not passes
        if plan.has_dialects and RESPONSES in opened.lanes:
            # The dialect of a target to which it does not pass depends on its items.
            is_whole = is_whole or not all(map(opened.passes_to, _over_responses(plan)))
        spec = await off_loop(opened.size, opened.translated) if is_whole else facts.spec
        asked = facts.spec
        session = call.request.session_id
        if not session and (asked.user or asked.prompt_cache_key):
            session = session_id({}, asked.user, asked.prompt_cache_key)
        read = raw if raw.members else replace(raw, members=facts.members)
        call.request = replace(call.request, spec=spec, session_id=session, raw=read)
        call.raw = opened if passes else None
        return plan

    async def read_prompt(
        self, caller: Caller, plans: CallPlans, raw: RawRequest
    ) -> tuple[CallPlan, ChatCompletionSpec, RawCall | None]:
        """Read a request for the tokens of a prompt.

        Returns its plan, its spec, and the request where a target takes it: the spec is whole
        otherwise. Raises Failure.
        """
        facts = await off_loop(len(raw.body) // SKIMMED, self._facts, raw, is_prompt=True)
        plan = plans.of(caller, facts.spec.model)
        translate = partial(_translated, self._prompt_translations[raw.api], raw, "")
        opened = self._opened(facts, plan, translate)
        if _passes(opened, plan):
            return plan, facts.spec, opened
        return plan, await off_loop(opened.size, opened.translated), None

    def _facts(self, raw: RawRequest, *, is_prompt: bool = False) -> RawFacts:
        lanes = self._lanes.get(raw.api)
        if lanes is None:
            raise invalid("raw.api", "The API is not known.")
        check_body(raw)
        return next(iter(lanes.values())).read(raw, is_prompt=is_prompt)

    def _opened(
        self, facts: RawFacts, plan: CallPlan, translate: Callable[[], ChatCompletionSpec]
    ) -> RawCall:
        return RawCall(
            facts=facts,
            lanes=self._lanes[facts.request.api],
            translate=translate,
            sends_provider_tools=plan.sends_provider_tools,
        )


def _passes(opened: RawCall, plan: CallPlan) -> bool:
    """Return whether a target takes a request as it is."""
    for route in plan.routes:
        if any(map(opened.passes_to, route.targets)):
            return True
    return plan.has_dialects and any(map(opened.passes_to, _over_responses(plan)))


def _over_responses(plan: CallPlan) -> Iterator[Target]:
    """Yield the targets that have both dialects, in that of Responses."""
    for route in plan.routes:
        for target in route.targets:
            if (other := over_responses(target)) is not None:
                yield other


def _translated(
    translate: Translate, raw: RawRequest, policy: ParameterPolicy
) -> ChatCompletionSpec:
    spec = translate(raw)
    validate(spec, policy)
    return spec
