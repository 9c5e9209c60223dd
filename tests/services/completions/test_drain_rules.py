from __future__ import annotations

from services.admission.drain_rules import drain_rules
from services.capabilities import CapabilityOverrides
from services.domain.spec import ChatCompletionSpec
from services.providers.base import ModelRoute
from tests.services.providers.targets import target_of

BILLED = CapabilityOverrides(billed_to_end=True)
UNSEEN = CapabilityOverrides(thinking="effort", thinking_default="always", thinking_shown=False)
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
