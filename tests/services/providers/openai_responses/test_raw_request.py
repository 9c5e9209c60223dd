"""Which requests of Responses pass as they are, and what is read of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.capabilities import CapabilityOverrides, lookup
from services.config import Quirks
from services.domain.raw_request import RawRequest
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.openai_responses import RAW_LANE
from services.providers.raw_lane import RawFacts
from tests.stand.responses_stand import RAW_TARGET

PAYS = replace(RAW_TARGET, sends_provider_tools=False)


def facts(**more: Any) -> RawFacts:
    """What is read of a request with these members."""
    asked = {"model": "house/model", "input": "Hi", "store": False, **more}
    return RAW_LANE.read(RawRequest(api="openai_responses", body=json.dumps(asked).encode()))


def at(model: str, target: Target = RAW_TARGET) -> Target:
    """Another model at the channel."""
    known = lookup(model, CapabilityOverrides(), dialect="openai-responses")
    return replace(target, model=model, capabilities=known)


PASSES: list[dict[str, Any]] = [
    {"tools": [{"type": "function", "name": "a", "parameters": {}}, {"type": "custom"}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": []}, {"type": "local_shell"}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}]},
    {"reasoning": {"effort": "xhigh", "summary": "auto"}, "include": []},
    {"include": ["reasoning.encrypted_content"], "text": {"verbosity": "low"}},
    {"input": [{"type": "reasoning", "encrypted_content": "gAAAA", "summary": []}]},
    {"input": [{"type": "never_seen", "x": 1}], "instructions": "i", "truncation": "auto"},
    {"temperature": 1, "service_tier": None, "metadata": {}, "background": False},
]


@pytest.mark.parametrize("more", PASSES)
def test_what_costs_tokens_alone_passes_for_all(more: dict[str, Any]) -> None:
    """Also items and reasoning of the provider."""
    assert RAW_LANE.takes(facts(**more), PAYS)
    assert RAW_LANE.takes(facts(**more), RAW_TARGET)


COSTLY: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search"}]},
    {"service_tier": "flex"},
    {"metadata": {"a": "b"}},
    {"reasoning": {"mode": "pro"}},
    {"never_seen": 1},
]


@pytest.mark.parametrize("more", COSTLY)
def test_what_may_cost_more_passes_for_those_who_do_not_pay(more: dict[str, Any]) -> None:
    """And where the channel passes everything, or that."""
    assert not RAW_LANE.takes(facts(**more), PAYS)
    assert RAW_LANE.takes(facts(**more), RAW_TARGET)


NEVER: list[dict[str, Any]] = [
    {"tools": [{"type": "file_search"}]},
    {"tools": [{"type": "mcp", "server_url": "https://a.example"}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "namespace"}]}]},
    {"tools": "all"},
    {"previous_response_id": "resp_1"},
    {"conversation": {"id": "c"}},
    {"prompt": {"id": "p"}},
    {"background": True},
    {"input": [{"type": "item_reference", "id": "rs_1"}]},
    {"input": [{"type": "reasoning", "summary": []}]},
    {"input": [{"type": "reasoning", "encrypted_content": "pomogator.state.x"}]},
    {"max_output_tokens": 3},
    {"max_output_tokens": 10_000_000},
    {"temperature": 0.2},
]


@pytest.mark.parametrize("more", NEVER)
def test_what_the_provider_must_not_get_passes_to_none(more: dict[str, Any]) -> None:
    """State, data of the operator's account, addresses, and what the model is known to refuse."""
    assert not RAW_LANE.takes(facts(**more), RAW_TARGET)


def test_what_a_model_lacks_does_not_pass_to_it() -> None:
    """The translation leaves it out, with a note."""
    plain = at("gpt-4o")
    assert RAW_LANE.takes(facts(temperature=0.2), plain)
    assert not RAW_LANE.takes(facts(include=["reasoning.encrypted_content"]), plain)
    assert not RAW_LANE.takes(facts(reasoning={"effort": "low"}), plain)
    assert not RAW_LANE.takes(facts(text={"verbosity": "low"}), plain)


def test_channels_that_differ_from_the_api() -> None:
    """Nothing passes that they drop, or call otherwise."""
    quirks = Quirks(drops=("parallel_tool_calls",), renames={"max_tokens": "limit"})
    channel = msgspec.structs.replace(RAW_TARGET.channel, quirks=quirks)
    odd = replace(RAW_TARGET, channel=channel)
    assert RAW_LANE.takes(facts(), odd)
    assert not RAW_LANE.takes(facts(parallel_tool_calls=True), odd)
    assert not RAW_LANE.takes(facts(max_output_tokens=100), odd)
    off = msgspec.structs.replace(RAW_TARGET.channel, pass_through=False)
    assert not RAW_LANE.takes(facts(), replace(RAW_TARGET, channel=off))
    assert not RAW_LANE.takes(facts(), replace(RAW_TARGET, thinking_by_name=True))


def test_a_request_without_a_limit_gets_one_where_the_money_is_limited() -> None:
    """As the translated request does; all other bytes stay."""
    asked = facts()
    sent = RAW_LANE.encode(asked, replace(RAW_TARGET, limits_output=True), Notes())
    limit = RAW_TARGET.capabilities.max_output_tokens
    body = asked.request.body.replace(b"house/model", b"gpt-5.6-terra")
    assert sent.body == b'{"max_output_tokens":%d,' % limit + body[1:]
    assert sent.thinking_tokens > 0


def test_what_is_read() -> None:
    """What limits, the bill and the session need."""
    read = facts(
        max_output_tokens=99,
        safety_identifier="u",
        prompt_cache_key="k",
        reasoning={"effort": "high"},
        stream=True,
        tools=[{"type": "function"}],
    )
    assert (read.spec.max_tokens, read.spec.user, read.spec.prompt_cache_key) == (99, "u", "k")
    assert (read.spec.reasoning_effort, read.stream, len(read.spec.tools)) == ("high", True, 1)
    assert not read.has_media
    image = {"type": "input_image", "image_url": "https://a.example/a.png"}
    assert facts(input=[{"role": "user", "content": [image]}]).has_media
    texts = RAW_LANE.beginning(facts(instructions="Be brief.")).messages[0].content
    assert [part.text for part in texts] == ["", '"Be brief."', '"Hi"']  # type: ignore[union-attr]


@pytest.mark.parametrize("more", [{"model": 5}, {"max_output_tokens": "x"}, {"stream": 1}])
def test_what_cannot_be_read_is_refused(more: dict[str, Any]) -> None:
    """With the field at fault."""
    with pytest.raises(Failure) as refused:
        facts(**more)
    assert refused.value.param == next(iter(more))


def test_headers_are_refused() -> None:
    """The API has none."""
    with pytest.raises(Failure):
        RAW_LANE.read(RawRequest(api="openai_responses", body=b"{}", headers={"a": "b"}))
