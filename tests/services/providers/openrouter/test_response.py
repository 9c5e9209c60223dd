"""Answers of OpenRouter: what they have beyond OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.domain.error_reason import ErrorReason
from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Event,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    TextDelta,
)
from services.errors import UpstreamError
from services.providers.base import Notes, Target
from services.providers.openrouter import DIALECT
from services.providers.translate import reasoning_state
from services.providers.translate.reasoning_state import Details
from tests.stand.event_parser import EventParser

TARGET = Target(
    channel=ChannelConfig(name="c", dialect="openrouter"),
    model="m",
    public_model="m",
    capabilities=Capabilities(),
)


def decode(*chunks: dict[str, Any]) -> list[Event]:
    """What comes of a stream of these chunks, between keep-alives."""
    decoder, parser = DIALECT.decoder(TARGET), EventParser()
    body = b": OPENROUTER PROCESSING\n\n".join(
        b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks
    )
    out: list[Event] = []
    for frame in [*parser.feed(body + b"data: [DONE]\n\n"), *parser.close()]:
        out += decoder.feed(frame)
    return out + decoder.finish()


def choice(finish_reason: str | None = None, **delta: object) -> dict[str, Any]:
    """A chunk as OpenRouter sends it: with the role, and with both finish reasons."""
    native = {"stop": "end_turn"}.get(finish_reason or "")
    fields = {"index": 0, "delta": {"role": "assistant", "content": ""} | delta}
    ends = {"finish_reason": finish_reason, "native_finish_reason": native}
    return {"id": "gen-1", "provider": "p", "choices": [fields | ends]}


def test_a_whole_stream() -> None:
    """Keep-alives are no events, an ending said twice is one, and usage is beside a choice."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cost": 0.1}
    detail = {"type": "reasoning.text", "text": "hm", "index": 0}
    signature = {"type": "reasoning.text", "signature": "s", "index": 0}
    members, reasoning, text, state, end, finished = decode(
        choice(reasoning="hm", reasoning_details=[detail]),
        choice(reasoning_details=[signature]),
        choice(content="a"),
        choice("stop"),
        choice("stop") | {"usage": usage},
    )

    assert members == AnswerMembers(extra_json=b'{"provider":"p"}')
    assert (reasoning, text) == (ReasoningDelta("hm"), TextDelta("a"))
    assert isinstance(state, ReasoningStateDelta)
    (block,) = reasoning_state.unpack(state.state, "openrouter", Notes())
    assert isinstance(block, Details)
    assert json.loads(bytes(block.json)) == [detail | {"signature": "s"}]
    assert end == ChoiceFinished(finish_reason="stop", native_finish_reason="end_turn")
    assert isinstance(finished, Finished)
    assert finished.usage is not None
    assert finished.usage.total_token_count == 7


@pytest.mark.parametrize("code", [429, "rate_limit_exceeded"])
def test_an_error_after_the_ending(code: object) -> None:
    """An answer that ended well is still a failure if an error follows."""
    error = {
        "error": {"code": code, "message": "Provider returned error", "metadata": {"raw": "Slow"}}
    }

    with pytest.raises(UpstreamError) as failed:
        decode(choice(content="a"), choice("stop"), choice("error") | error)
    assert failed.value.reason == ErrorReason.UPSTREAM_RATE_LIMITED
    assert failed.value.message == "Slow"


def test_refusals_tell_the_true_reason() -> None:
    """What the provider behind it said is what counts."""
    raw = json.dumps({"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}})
    body = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}

    error = DIALECT.error(400, {}, json.dumps(body).encode())
    assert error.reason == ErrorReason.CONTEXT_LENGTH_EXCEEDED
    assert not error.row.retryable
