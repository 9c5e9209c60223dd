"""The dialect of each request, as `explain` shows it."""

from __future__ import annotations

import json

import pytest

from services.admission.call_plan import CallPlans
from services.clock import SystemClock, system_chance
from services.config import ChannelConfig, Config
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec, Tool
from services.operations.explainer import Explainer
from services.providers.registry import DIALECTS
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth


@pytest.mark.parametrize(
    ("tools", "dialect", "path"),
    [(["look"], "openai-responses", "/responses"), ([], "openai", "/chat/completions")],
)
def test_the_request_of_a_channel_with_two_dialects(
    tools: list[str], dialect: str, path: str
) -> None:
    """The URL and the body are those of the dialect that the request gets."""
    channel = ChannelConfig(
        name="c", dialect="openai", base_url="http://x/v1", models={"m": "gpt-5.6-terra"}
    )
    config = Config(channels=(channel,))
    catalog = Catalog(config)
    explainer = Explainer(
        catalog=catalog,
        plans=CallPlans(config, catalog.resolve_all),
        dialects=DIALECTS,
        health=ChannelHealth(SystemClock()),
        chance=system_chance(),
    )
    asked = Message(role="user", content=[TextPart(text="Hi")])
    spec = ChatCompletionSpec(
        model="m", messages=[asked], tools=[Tool(name=name) for name in tools]
    )

    (candidate,) = explainer.explain(spec).candidates

    assert candidate.dialect == dialect
    assert candidate.url == f"http://x/v1{path}"
    assert ("input" in json.loads(candidate.body)) == bool(tools)
