"""Call plan: the settings of a configuration and a key for all calls with that key to one model.

A plan is compiled at the first such call. A reload of the configuration replaces all of them; a
plan whose key has another scope or account since is compiled again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace as changed
from typing import Literal, Self

import msgspec
from msgspec.structs import replace

from services.admission.answer_limit import answer_limit
from services.admission.drain_rules import DrainRules, drain_rules
from services.admission.keyring import Caller
from services.admission.limits import KeyLimits, LimitRules, Subject
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT, THINKING_SUFFIX
from services.config import Config
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.metering.holds import HoldTerms
from services.metering.price_list import PriceList
from services.metering.prices import FREE, Price, Tariff
from services.providers.base import ModelRoute, Target
from services.storage.counters import Meter

PLANS_MAX = 20_000
"""The most plans that are kept."""

CACHED_PROMPT_TOKENS_MIN = 1_024
"""The shortest prompt that providers cache, by OpenAI's and Anthropic's documents."""

MARKED_DIALECT = "anthropic"
"""Dialect whose provider caches only prompts with marks."""

Unpinned = Literal["", "off", "no_choice", "no_cache_price", "short_prompt"]
"""Reason for which the calls of a session are not kept at one target: the configuration; the model
has one target; its cached tokens have no lower price; no provider caches such a prompt. Empty: the
calls are kept there."""

_FREE = Tariff(FREE)
_PLAIN = ChatCompletionSpec(model="")
_NOT_ALLOWED = "The key may not use this model."
_UNPRICED = "This model has no price yet."
_NO_EMBEDDINGS = "This model computes no embeddings."
_NO_COMPLETIONS = "This model computes embeddings: use /v1/embeddings."


class AnswerBound(msgspec.Struct, frozen=True):
    """Bound of the tokens of an answer of any of some targets."""

    targets: Sequence[Target]
    usual: int
    """The highest `answer_limit` of a request without a limit that does not ask for reasoning."""
    least: int
    """The highest one of such a request with the lowest limit."""
    most: int
    """The highest one of all such requests. A limit between both is sent as it is."""
    reasons_by_name: bool
    """Whether a target reasons unless the request says not to."""

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Self:
        """Compile the bound."""
        usual, least, most = (
            max([answer_limit(ChatCompletionSpec(model="", max_tokens=limit), each)
                 for each in targets])
            for limit in (None, 1, sys.maxsize)
        )  # fmt: skip
        by_name = any(each.thinking_by_name for each in targets)
        return cls(targets, usual, least, most, by_name)

    def tokens(self, spec: ChatCompletionSpec) -> int:
        """Return the most tokens that all choices of a request together may take."""
        if (
            spec.reasoning_effort
            or spec.other_reasoning_effort
            or spec.thinking is not None
            or self.reasons_by_name
        ):
            tokens = max([answer_limit(spec, each) for each in self.targets])
        else:
            limit = spec.max_tokens
            tokens = min(max(limit, self.least), self.most) if limit else self.usual
        return tokens if spec.n is None else tokens * (spec.n or 1)


class CallPlan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Plan of the calls with one key to one model."""

    caller: Caller
    """The caller, as the key was when the plan was compiled."""
    model: str
    """The requested model, by the name of its price, its limits and the scopes of keys."""
    routes: Sequence[ModelRoute]
    """The requested model, then those of its fallbacks that the key may use and that are sold."""
    tariffs: Mapping[str, Tariff]
    """Tariffs of these models. Without that of the requested one where it is not sold."""
    bounds: Sequence[tuple[AnswerBound, Tariff]]
    """For each route the bound of its answers, and the tariff of its model."""
    hold_terms: HoldTerms
    """Terms of the holds, with the price of the requested model."""
    meters: Sequence[Meter]
    """Limits on calls."""
    channel_meters: Mapping[str, Sequence[Meter]]
    """Limits on attempts, by channel. Channels without limits are left out."""
    first_event_timeouts_s: Sequence[float]
    """Timeouts of a first event of the channels, longest first."""
    sends_provider_tools: bool
    """Whether calls may use tools that a provider bills besides tokens."""
    unpinned: Unpinned
    """Reason for which calls with long prompts are not kept at the target of their session."""
    has_choice: bool
    """Whether calls may choose between targets."""
    has_dialects: bool
    """Whether a target has two dialects, of which each request has one."""
    marks_prompts: bool
    """Whether long prompts that come again get cache marks, at targets that need them."""
    answer_headers: Mapping[str, str]
    """Headers of answers that tell the edge how to show them."""
    plain_drains: DrainRules
    """How answers to plain requests are drained."""
    is_open: bool
    """Whether the key may use the model, which needs a price if the caller pays."""
    pays: bool
    """Whether the calls are limited by money. See `Caller.pays`."""
    embeds: bool = False
    """Whether the model computes embeddings, and writes no completions."""
    _of_dialects: dict[tuple[tuple[str, bool], ...], CallPlan] = {}
    """The plans of calls to one choice of dialects, where `has_dialects`."""

    def with_dialects(self, routes: Sequence[ModelRoute]) -> CallPlan:
        """Return the plan of a call whose targets have the dialects of `routes`.

        It is compiled at the first call to these dialects.
        """
        dialects = tuple(
            [
                (target.channel.dialect, target.replaces_responses)
                for route in routes
                for target in route.targets
            ]
        )
        plan = self._of_dialects.get(dialects)
        if plan is None:
            plan = replace(self, routes=routes, bounds=_bounds(routes, self.tariffs))
            self._of_dialects[dialects] = plan
        return plan

    def require_allowed(self) -> None:
        """Raise Failure MODEL_NOT_ALLOWED unless the key may use the model."""
        if not self.caller.may_use(self.model):
            raise _refused(ErrorReason.MODEL_NOT_ALLOWED, _NOT_ALLOWED, self.model)

    def require_kind(self, *, embeds: bool) -> None:
        """Raise Failure MODEL_NOT_FOUND unless the model is of the kind that the caller wants."""
        if self.embeds is not embeds:
            message = _NO_EMBEDDINGS if embeds else _NO_COMPLETIONS
            raise _refused(ErrorReason.MODEL_NOT_FOUND, message, self.model)

    def require_sold(self) -> None:
        """Raise Failure MODEL_NOT_FOUND where the model has no price, and callers must pay."""
        if self.model not in self.tariffs:
            raise _refused(ErrorReason.MODEL_NOT_FOUND, _UNPRICED, self.model)


class CallPlans:
    """Plans of one configuration. A reload makes new ones."""

    def __init__(self, config: Config, routes: Callable[[str], Sequence[ModelRoute]]) -> None:
        """`routes` returns the route of a public name and those of its fallbacks, or raises."""
        self.prices = PriceList.of(config)
        """Prices of models."""
        self._routes = routes
        self.limits = LimitRules(config.rules)
        """Rules of limits."""
        self._refuses_unpriced = config.billing.unpriced == "refuse"
        self._provider_tools = config.billing.provider_tools
        self._keeps_sessions = config.prompt_cache.affinity
        self._marks_prompts = config.prompt_cache.marks
        self._shows_text = config.reasoning.content == "text"
        self._plans: dict[tuple[str, str], CallPlan] = {}

    def of(self, caller: Caller, model: str) -> CallPlan:
        """Return the plan of a key's calls to a public name. Raises Failure MODEL_NOT_FOUND."""
        plan = self._plans.get((caller.key_id, model))
        if plan is None or plan.caller is not caller:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            plan = self._plans[caller.key_id, model] = self._compiled(caller, model)
        return plan

    def sells(self, caller: Caller, model: str) -> bool:
        """Return whether a model has a price, or the caller may use it without one."""
        if not self._refuses_unpriced or not caller.pays:
            return True
        return self.prices.lookup(model) is not None

    def subjects(self, most: int) -> Iterator[Subject]:
        """Yield the subjects of limits of the newest `most` plans: calls, and their attempts."""
        for plan in list(self._plans.values())[: -most - 1 : -1]:
            subject = _subject(plan.caller, plan.model)
            yield subject
            channels = {each.channel.name for one in plan.routes for each in one.targets}
            yield from (subject._replace(channel=name) for name in sorted(channels))

    def _compiled(self, caller: Caller, model: str) -> CallPlan:
        requested, *fallbacks = self._routes(model)
        base = requested.base_model
        others = [one for one in fallbacks if self._may_answer(caller, one.base_model)]
        routes = [requested, *others]
        names = [one.base_model for one in routes if self.sells(caller, one.base_model)]
        tariffs = {name: Tariff(self._price(name), caller.markup_bp) for name in names}
        sends_tools = self._provider_tools == "free" or not caller.pays
        if self._provider_tools == "charge":
            routes = [_with_charged_tools(one, tariffs) for one in routes]
        if not sends_tools:
            routes = [_without_provider_tools(one) for one in routes]
        channels = {each.channel.name: each.channel for one in routes for each in one.targets}
        subject = _subject(caller, base)
        meters = {name: self.limits.meters(subject._replace(channel=name)) for name in channels}
        shows_text = (caller.scope.text_content or self._shows_text) and model.endswith(
            THINKING_SUFFIX
        )
        return CallPlan(
            caller=caller,
            model=base,
            routes=routes,
            tariffs=tariffs,
            bounds=_bounds(routes, tariffs),
            hold_terms=HoldTerms(
                account=caller.account,
                key_id=caller.key_id,
                model=base,
                price=tariffs.get(base, _FREE).price.to_json(),
                monthly_nano=caller.scope.monthly_nano_usd,
            ),
            meters=self.limits.meters(subject),
            channel_meters={name: each for name, each in meters.items() if each},
            first_event_timeouts_s=sorted(
                [each.first_token_timeout_s for each in channels.values()], reverse=True
            ),
            sends_provider_tools=sends_tools,
            unpinned=self.unpinned(routes),
            marks_prompts=self._marks_prompts
            and any(each.dialect == MARKED_DIALECT for each in channels.values()),
            has_choice=len(routes) > 1 or len(requested.targets) > 1,
            has_dialects=any(one.has_dialects for one in routes),
            answer_headers={CONTENT_HEADER: TEXT_CONTENT} if shows_text else {},
            plain_drains=drain_rules(_PLAIN, routes),
            pays=caller.pays,
            is_open=caller.may_use(base) and base in tariffs,
            embeds=requested.capabilities.embeddings is not None,
        )

    def unpinned(self, routes: Sequence[ModelRoute]) -> Unpinned:
        """Return why long prompts to these routes are not kept at the target of their session."""
        if not self._keeps_sessions:
            return "off"
        with_choice = [route for route in routes if len(route.targets) > 1]
        if not with_choice:
            return "no_choice"
        prices = [self.prices.lookup(route.base_model) or FREE for route in with_choice]
        return "" if any(one.cache_read < one.prompt for one in prices) else "no_cache_price"

    def _price(self, model: str) -> Price:
        price = self.prices.lookup(model) or FREE
        if self._provider_tools == "free" and price.provider_tools:
            return replace(price, provider_tools={})
        return price

    def _may_answer(self, caller: Caller, model: str) -> bool:
        return caller.may_use(model) and self.sells(caller, model)


def _bounds(
    routes: Sequence[ModelRoute], tariffs: Mapping[str, Tariff]
) -> Sequence[tuple[AnswerBound, Tariff]]:
    return [(AnswerBound.of(one.targets), tariffs.get(one.base_model, _FREE)) for one in routes]


def _subject(caller: Caller, model: str) -> Subject:
    scope = caller.scope
    own = KeyLimits(rpm=scope.rpm, tpm=scope.tpm, concurrency=scope.concurrency)
    return Subject(key=caller.key_id, model=model, own=own)


def _with_charged_tools(route: ModelRoute, tariffs: Mapping[str, Tariff]) -> ModelRoute:
    """Return a route whose targets know the tools that its price has."""
    tools = frozenset(tariffs.get(route.base_model, _FREE).price.provider_tools)
    if not tools:
        return route
    targets = [changed(target, charged_tools=tools) for target in route.targets]
    return changed(route, targets=targets)


def _without_provider_tools(route: ModelRoute) -> ModelRoute:
    """Return a route to whose targets no tools are sent that a provider bills besides tokens."""
    targets = [changed(target, sends_provider_tools=False) for target in route.targets]
    return changed(route, targets=targets)


def _refused(reason: ErrorReason, message: str, model: str) -> Failure:
    return Failure(reason, message, param="model", facts={"model": model})
