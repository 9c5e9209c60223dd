"""Plans of calls: what a configuration and a key say of a key's calls to a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.admission.answer_limit import answer_limit
from services.admission.call_plan import CallPlans
from services.admission.drain_rules import drain_rules
from services.admission.keyring import Caller
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT
from services.config import BillingConfig, ChannelConfig, Config, LimitConfig, ModelConfig, Secret
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec, Tool
from services.errors import Failure
from services.routing.catalog import Catalog
from services.routing.dialect_choice import routes_for
from services.storage.keys import KeyScope

CLAUDE = "house/claude-sonnet-4"
CALLER = Caller(key_id="key-1", account="acme")


def plans(**options: Any) -> CallPlans:  # Any: fields of the configuration.
    """Return the plans of a configuration with one channel, two models and a fallback."""
    channel = ChannelConfig(
        name="main",
        dialect="anthropic",
        key=Secret("sk-canary"),
        models={CLAUDE: "claude-sonnet-4-20250514", "house/spare": "spare"},
    )
    models = (ModelConfig(name=CLAUDE, fallbacks=("house/spare",)),)
    config = Config(channels=(channel,), models=models, **options)
    return CallPlans(config, Catalog(config).resolve_all)


def test_a_plan_is_kept_until_the_key_changes() -> None:
    """The key's scope is that of the caller who calls now."""
    compiled = plans(billing=BillingConfig(unpriced="free"))
    plan = compiled.of(CALLER, CLAUDE)
    narrower = replace(CALLER, scope=KeyScope(models=frozenset({CLAUDE}), rpm=3))

    assert compiled.of(CALLER, CLAUDE) is plan
    assert [route.model for route in plan.routes] == [CLAUDE, "house/spare"]
    changed = compiled.of(narrower, CLAUDE)
    assert [route.model for route in changed.routes] == [CLAUDE]
    assert [meter.limit for meter in changed.meters] == [3]


def test_each_choice_of_dialects_has_a_plan_of_its_own() -> None:
    """With the limits of answers that requests in these dialects are sent with."""
    channel = ChannelConfig(
        name="main", dialect="openai", models={"house/gpt": "gpt-5"}, responses="auto"
    )
    config = Config(channels=(channel,), billing=BillingConfig(unpriced="free"))
    plan = CallPlans(config, Catalog(config).resolve_all).of(CALLER, "house/gpt")
    asked = ChatCompletionSpec(model="house/gpt", max_tokens=1)
    with_items = ChatCompletionSpec(model="house/gpt", tools=[Tool(name="", other_json=b"{}")])
    chat, responses = (routes_for(spec, plan.routes) for spec in (asked, with_items))

    in_chat, in_responses = plan.with_dialects(chat), plan.with_dialects(responses)

    assert plan.with_dialects(routes_for(asked, plan.routes)) is in_chat
    assert plan.with_dialects(routes_for(with_items, plan.routes)) is in_responses
    for variant, routes in ((in_chat, chat), (in_responses, responses)):
        target = routes[0].targets[0]
        assert variant.routes[0].targets[0].channel.dialect == target.channel.dialect
        assert variant.bounds[0][0].tokens(asked) == answer_limit(asked, target)
    assert in_chat is not in_responses


def test_limits_of_calls_and_of_channels_are_apart() -> None:
    """A channel without limits has no entry."""
    rules = (LimitConfig(key="*", rpm=5), LimitConfig(channel="main", concurrency=2))

    limited, unlimited = plans(limits=rules).of(CALLER, CLAUDE), plans().of(CALLER, CLAUDE)

    assert [meter.limit for meter in limited.meters] == [5]
    assert [meter.limit for meter in limited.channel_meters["main"]] == [2]
    assert (unlimited.meters, unlimited.channel_meters) == ([], {})


def test_a_model_without_a_price_is_refused_to_callers_who_pay() -> None:
    """Also as a fallback. Callers who do not pay get both for nothing."""
    paid = plans().of(CALLER, "house/spare")
    free = plans().of(replace(CALLER, unlimited=True), "house/spare")

    with pytest.raises(Failure, match="no price yet"):
        paid.require_sold()
    free.require_sold()
    assert free.tariffs["house/spare"].price.prompt_max == 0
    assert [route.model for route in plans().of(CALLER, CLAUDE).routes] == [CLAUDE]


def test_a_key_may_use_the_models_of_its_scope() -> None:
    """The name with a suffix counts as that without it."""
    caller = replace(CALLER, scope=KeyScope(models=frozenset({"house/spare"})))

    plan = plans().of(caller, f"{CLAUDE}-thinking")

    assert plan.model == CLAUDE
    with pytest.raises(Failure, match="may not use"):
        plan.require_allowed()


@pytest.mark.parametrize("unlimited", [False, True])
def test_targets_know_whether_the_caller_may_use_tools_of_the_provider(unlimited: bool) -> None:
    """Only callers who do not pay may, where such tools are not free."""
    plan = plans().of(replace(CALLER, unlimited=unlimited), CLAUDE)

    targets = [target for route in plan.routes for target in route.targets]
    assert {target.sends_provider_tools for target in targets} == {unlimited}
    assert plan.sends_provider_tools is unlimited


def test_headers_tell_the_edge_to_show_text() -> None:
    """Where the key asks for text, of the names that end in `-thinking`."""
    caller = replace(CALLER, scope=KeyScope(text_content=True))
    compiled = plans()

    assert compiled.of(caller, f"{CLAUDE}-thinking").answer_headers == {
        CONTENT_HEADER: TEXT_CONTENT
    }
    assert compiled.of(caller, CLAUDE).answer_headers == {}


def test_plan_says_how_answers_to_plain_requests_are_drained() -> None:
    """As the rules say of a request with nothing but texts."""
    compiled = plans()
    text = Message(role="user", content=[TextPart(text="Hi")])
    spec = ChatCompletionSpec(model=CLAUDE, messages=[text], max_tokens=5, temperature=0)

    for model, is_drained in ((CLAUDE, False), (f"{CLAUDE}-thinking", True)):
        plan = compiled.of(CALLER, model)
        assert plan.plain_drains == drain_rules(spec, plan.routes)
        assert bool(plan.plain_drains) is is_drained
