from __future__ import annotations

import pytest
from msgspec.structs import replace

from services.admission.drain_rules import drain_rules, has_common_rules
from services.capabilities import CapabilityOverrides
from services.domain.spec import ChatCompletionSpec, Thinking, Tool
from services.providers.base import ModelRoute
from tests.services.providers.targets import target_of

BILLED = CapabilityOverrides(billed_to_end=True)
UNSEEN = CapabilityOverrides(thinking="effort", thinking_default="always", thinking_shown=False)
ON_DEMAND = CapabilityOverrides(
    thinking="effort", thinking_default="off", thinking_shown=False, billed_to_end=False
)
PLAIN = CapabilityOverrides(thinking="none", billed_to_end=False)


def test_each_model_of_a_channel_has_its_own_rule() -> None:
    """A fallback at the same channel changes neither the rule of the first model nor its charge."""
    rows = {"billed": BILLED, "unseen": UNSEEN, "plain": PLAIN}
    targets = {name: target_of(name, "openai", overrides=row) for name, row in rows.items()}
    routes = [
        ModelRoute(model=name, base_model=name, targets=(target,))
        for name, target in targets.items()
    ]

    rules = drain_rules(ChatCompletionSpec(model="billed"), routes)

    assert {model: rule.is_billed for (_, model), rule in rules.items()} == {
        "billed": True,
        "unseen": False,
    }


@pytest.mark.parametrize(
    "field",
    [
        {"thinking": Thinking(mode="enabled")},
        {"reasoning_effort": "high"},
        {"other_reasoning_effort": "ultra"},
        {"extra_json": b'{"chat_template_kwargs":{"enable_thinking":true}}'},
        {"tools": [Tool(name="", other_json=b'{"type":"web_search"}')]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_fields_that_change_the_rules_are_looked_at(field: dict[str, object]) -> None:
    """The rules of other requests without messages are those of an empty one."""
    target = target_of("on-demand", "openai", overrides=ON_DEMAND)
    routes = [ModelRoute(model="on-demand", base_model="on-demand", targets=(target,))]
    empty = ChatCompletionSpec(model="on-demand")
    asking = replace(empty, **field)

    assert drain_rules(asking, routes) != drain_rules(empty, routes)
    assert (has_common_rules(asking), has_common_rules(empty)) == (False, True)
