"""Recorded exchanges of many providers, decoded in every slicing.

The recordings are not part of the project: POMOGATOR_CAPTURES names the folder that
holds them. Each says what a reader of its own made of it, which ours has to match.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from services.errors import UpstreamError
from services.providers.failures import provider_failure
from services.providers.openai.response import OpenAiDecoder
from tests.stand.event_parser import EventParser

FOLDER = os.environ.get("POMOGATOR_CAPTURES", "")

UNREAD_REASONING = {"snowflake-s-stream-reasoning-c6b2"}
"""Streams whose expected reading leaves out their reasoning, which is in `reasoning.text`."""

Case = dict[str, Any]


def cases(*kinds: str) -> list[Any]:
    """The recordings of these kinds, or one case that skips where there are none."""
    if not FOLDER:
        return [pytest.param({}, marks=pytest.mark.skip("POMOGATOR_CAPTURES is not set"))]
    found = [json.loads(path.read_bytes()) for path in sorted(Path(FOLDER).glob("*/*.json"))]
    return [
        pytest.param(case, id=case["id"])
        for case in found
        if case["protocol"] == "openai" and case["kind"] in kinds
    ]


@dataclass(slots=True)
class Answer:
    """What a caller would put together from the events of one choice."""

    text: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish_reason: str = ""
    native_finish_reason: str = ""


def body(case: Case) -> bytes:
    """The body as the provider meant it."""
    response = case["response"]
    if response["body_encoding"] == "utf-8":
        return str(response["body"]).encode()
    data = base64.b64decode(response["body"])
    return zlib.decompressobj(31).decompress(data) if data[:2] == b"\x1f\x8b" else data


def randomly(data: bytes) -> Iterator[bytes]:
    """Pieces of random sizes, the same in every run."""
    sizes, start = random.Random(len(data)), 0  # noqa: S311 - no secret
    while start < len(data):
        size = sizes.randint(1, 300)
        yield data[start : start + size]
        start += size


SLICINGS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda data: [data],
    "event": lambda data: [piece + b"\n\n" for piece in data.split(b"\n\n")],
    "byte": lambda data: [data[i : i + 1] for i in range(len(data))],
    "random": lambda data: list(randomly(data)),
}


def decode(case: Case, slicing: str = "whole") -> tuple[list[Event], bool]:
    """The events, and whether the answer ended in an error."""
    decoder = OpenAiDecoder(pack_state=json.dumps)
    events: list[Event] = []
    try:
        if case["kind"] == "non-stream":
            return decoder.whole(body(case)).events(), False
        parser = EventParser()
        for piece in SLICINGS[slicing](body(case)):
            for frame in parser.feed(piece):
                events += decoder.feed(frame)
        for frame in parser.close():
            events += decoder.feed(frame)
        return events + decoder.finish(), False
    except UpstreamError:
        return events, True


def put_together(events: list[Event]) -> dict[int, Answer]:
    """The answers, put together as the contract says."""
    answers: dict[int, Answer] = {}
    for event in events:
        if not isinstance(event, Delta | ChoiceFinished):
            continue
        answer = answers.setdefault(event.index, Answer())
        match event:
            case TextDelta():
                answer.text += event.text
            case ReasoningDelta():
                answer.reasoning += event.text
            case ToolCallDelta():
                add_call(answer, event)
            case ChoiceFinished():
                answer.finish_reason = event.finish_reason
                answer.native_finish_reason = event.native_finish_reason
    return answers


def add_call(answer: Answer, call: ToolCallDelta) -> None:
    """Only the first piece has an ID and a name, and calls are numbered from 0."""
    if call.call_index == len(answer.calls):
        assert call.id
        assert call.name
        answer.calls.append([call.id, call.name, call.arguments])
    else:
        assert not call.id
        assert not call.name
        answer.calls[call.call_index][2] += call.arguments


@pytest.mark.parametrize("case", cases("stream", "non-stream"))
def test_answers(case: Case) -> None:
    """Text, reasoning, tool calls, endings and usage are what another reader found."""
    events, failed = decode(case)
    expect = case["expect"]
    answers = put_together(events)

    failure_expected = bool(expect.get("error")) or any(
        choice.get("error") for choice in expect.get("choices", ())
    )
    # `complete` is false for a stream without a finish reason, which with `[DONE]` is no cut.
    ended = expect.get("complete") or b"data: [DONE]" in body(case)
    unfinished = case["kind"] == "stream" and not ended
    assert failed == (failure_expected or unfinished)
    if failed:
        return
    for choice in expect["choices"]:
        answer = answers[choice.get("index", 0)]
        for name in ("text",) if case["id"] in UNREAD_REASONING else ("text", "reasoning"):
            digest = hashlib.sha256(getattr(answer, name).encode()).hexdigest()
            assert digest == choice[f"{name}_sha256"], name
        calls = [(one["id"], one["name"]) for one in choice["tool_calls"]]
        assert [(one[0], one[1]) for one in answer.calls] == calls
        for ours, theirs in zip(answer.calls, choice["tool_calls"], strict=True):
            assert theirs["arguments"] in (None, ours[2])
        assert answer.finish_reason == (choice["finish_reason_openai"] or "stop")
        assert choice.get("native_finish_reason") in (None, answer.native_finish_reason)
    assert_usage(events[-1], expect.get("usage"))


def assert_usage(last: Event, raw: dict[str, Any] | None) -> None:
    """Our usage is the provider's, with the rest of its total counted as completion."""
    assert isinstance(last, Finished)
    usage = last.usage
    if raw is None:
        assert usage is None
        return
    assert usage is not None
    total = max(raw["total_tokens"], raw["prompt_tokens"] + raw["completion_tokens"])
    assert usage.prompt_token_count == raw["prompt_tokens"]
    assert usage.total_token_count == total
    assert usage.completion_token_count == total - raw["prompt_tokens"]
    assert usage.thinking_token_count <= usage.completion_token_count
    assert usage.cache_read_token_count <= usage.prompt_token_count


@pytest.mark.parametrize("case", cases("stream"))
def test_slices_do_not_matter(case: Case) -> None:
    """Every slicing of a stream gives the same events."""
    outcome = decode(case)

    for slicing in ("event", "byte", "random"):
        assert decode(case, slicing) == outcome


@pytest.mark.parametrize("case", cases("stream"))
def test_a_cut_is_never_a_success(case: Case) -> None:
    """A stream that breaks off before it has said why it stopped is an error."""
    whole = body(case)
    end = re.search(rb'"finish_reason":\s*"\w', whole)
    text = whole[: (end.start() if end else len(whole)) // 2].decode(errors="ignore")
    cut = case | {"response": {"body_encoding": "utf-8", "body": text}}

    events, failed = decode(cut)

    assert failed
    assert all(isinstance(event, Delta | AnswerMembers) for event in events)


@pytest.mark.parametrize("case", cases("error"))
def test_refusals(case: Case) -> None:
    """Each refusal has a reason of its own class, and a message without account IDs."""
    response = case["response"]
    headers = {name.lower(): value for name, value in response["headers"]}
    error = provider_failure(response["status"], headers, body(case))

    retryable = response["status"] in (401, 402, 404, 429) or response["status"] >= 500
    named = {"REQUEST_TOO_LARGE", "CONTEXT_LENGTH_EXCEEDED", "CONTENT_FILTERED"}
    can_retry = error.row.retryable
    assert can_retry == retryable or error.reason in named or response["status"] == 403
    assert error.message.isprintable()
    assert "REDACTED" not in error.message
