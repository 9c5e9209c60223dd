"""What is read of a request that may pass as it is, and which ones pass."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from services.capabilities import CapabilityOverrides, lookup
from services.config import ChannelConfig, PassThrough
from services.domain.error_reason import ErrorReason
from services.domain.raw_request import RawRequest
from services.errors import Failure
from services.providers.anthropic import RAW_LANE
from services.providers.base import Notes, Target

ASKED = {"model": "house/claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def target(pass_through: PassThrough = "harmless", *, pays: bool = True) -> Target:
    """Claude at a channel, for a caller that pays for what it uses or not."""
    channel = ChannelConfig(
        name="a", dialect="anthropic", models={"house/claude": "claude"}, pass_through=pass_through
    )
    return Target(
        channel=channel,
        model="claude-sonnet-4-5",
        public_model="house/claude",
        capabilities=lookup("claude-sonnet-4-5", CapabilityOverrides()),
        sends_provider_tools=not pays,
    )


def raw(headers: dict[str, str] | None = None, **more: Any) -> RawRequest:
    """A request with these members."""
    body = json.dumps({**ASKED, **more}).encode()
    return RawRequest(api="anthropic_messages", body=body, headers=headers or {})


HARMLESS: list[dict[str, Any]] = [
    {"tools": [{"name": "a", "input_schema": {"type": "object"}}]},
    {"tools": [{"type": "custom", "name": "a"}, {"type": "bash_20250124", "name": "bash"}]},
    {"tools": [], "mcp_servers": [], "container": None},
    {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "output_config": {"effort": "max"}},
    {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
    {"metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"}},
    {"messages": [{"role": "user", "content": [{"type": "never_seen", "x": 1}]}]},
]
COSTLY: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    {"tools": [{"type": "code_execution_20250825", "name": "code"}]},
    {"tools": "all"},
    {"tools": [{"type": 5}]},
    {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    {"speed": "fast"},
    {"inference_geo": "us"},
    {"container": "c"},
    {"mcp_servers": [{"type": "url", "url": "https://example.com"}]},
    {"never_seen": 1},
]


@pytest.mark.parametrize("more", HARMLESS)
def test_what_costs_tokens_alone_passes_for_all(more: dict[str, Any]) -> None:
    """Also parts that this version does not know."""
    facts = RAW_LANE.read(raw(**more))
    assert RAW_LANE.takes(facts, target())
    assert RAW_LANE.takes(facts, target(pays=False))


@pytest.mark.parametrize("more", COSTLY)
def test_what_may_cost_more_passes_for_those_who_may_use_it(more: dict[str, Any]) -> None:
    """Accounts without limit, and channels that pass everything."""
    facts = RAW_LANE.read(raw(**more))
    assert not RAW_LANE.takes(facts, target())
    assert RAW_LANE.takes(facts, target(pays=False))
    assert RAW_LANE.takes(facts, target(pass_through=True))


def test_a_tool_with_a_type_twice_does_not_pass() -> None:
    """Readers take either."""
    body = raw().body[:-1] + b',"tools":[{"type":"custom","type":"web_search_20250305"}]}'
    facts = RAW_LANE.read(RawRequest(api="anthropic_messages", body=body))
    assert not RAW_LANE.takes(facts, target())


def test_channels_and_names_without_the_lane() -> None:
    """A channel that passes nothing unknown, and a name that asks for reasoning."""
    facts = RAW_LANE.read(raw())
    assert not RAW_LANE.takes(facts, target(pass_through=False))
    assert not RAW_LANE.takes(facts, replace(target(), thinking_by_name=True))
    named = RAW_LANE.read(raw(speed="fast"))
    assert RAW_LANE.takes(named, target(pass_through=("harmless", "speed")))


def test_betas() -> None:
    """Known ones pass for all; others, and very long lists, do not."""
    known = raw({"anthropic-beta": "effort-2025-11-24, prompt-caching-2024-07-31"})
    assert RAW_LANE.takes(RAW_LANE.read(known), target())
    other = RAW_LANE.read(raw({"anthropic-beta": "fast-mode-2026-02-01"}))
    assert not RAW_LANE.takes(other, target())
    assert RAW_LANE.takes(other, target(pays=False))
    long = RAW_LANE.read(raw({"anthropic-beta": "x" * 1_025}))
    assert not RAW_LANE.takes(long, target(pays=False))


def test_what_is_sent() -> None:
    """The body with the provider's name of the model, the headers, and a version in any case."""
    asked = raw({"anthropic-beta": "b"}, stream=True)
    sent = RAW_LANE.encode(RAW_LANE.read(asked), target(), Notes())
    assert sent.body == asked.body.replace(b"house/claude", b"claude-sonnet-4-5")
    assert sent.headers == {"anthropic-beta": "b", "anthropic-version": "2023-06-01"}
    assert (sent.path, sent.streamed) == ("/messages", True)


def test_what_is_read() -> None:
    """Limits, reasoning and the end user; the rest is the provider's."""
    facts = RAW_LANE.read(
        raw(
            thinking={"type": "enabled", "budget_tokens": 2_048, "display": "omitted", "new": 1},
            output_config={"effort": "high"},
            metadata={"user_id": "u"},
            top_k="no number",
        )
    )
    spec = facts.spec
    assert (spec.model, spec.max_tokens, spec.user) == ("house/claude", 9, "u")
    assert spec.thinking is not None
    assert (spec.thinking.budget_tokens, spec.thinking.excluded) == (2_048, True)
    assert spec.reasoning_effort == "high"
    assert (facts.stream, facts.has_media) == (False, False)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image", "source": {"type": "url", "url": "https://example.com/a"}}],
        [{"type": "document", "source": {"type": "text", "data": "x"}}],
    ],
)
def test_media_are_seen(content: Any) -> None:
    """Also behind escapes of letters."""
    body = raw(messages=[{"role": "user", "content": content}]).body
    hidden = body.replace(b"source", b"sourc\\u0065").replace(b"image", b"im\\u0061ge")
    for text in (body, hidden):
        request = RawRequest(api="anthropic_messages", body=text)
        assert RAW_LANE.read(request).has_media


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_what_the_bill_needs_must_have_its_type(changed: dict[str, Any], param: str) -> None:
    """The error names the field."""
    with pytest.raises(Failure) as refused:
        RAW_LANE.read(raw(**changed))
    assert (refused.value.reason, refused.value.param) == (ErrorReason.INVALID_FIELD, param)


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "k"}, {"anthropic-beta": "a\r\nx-api-key: k"}, {"Anthropic-Beta": "a"}],
)
def test_other_headers_are_refused(headers: dict[str, str]) -> None:
    """Callers over gRPC can name any, and write any character."""
    with pytest.raises(Failure):
        RAW_LANE.read(raw(headers))
