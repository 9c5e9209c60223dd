"""Properties of every answer, whatever the provider says and however its bytes arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stand.dialect_stand import DIALECTS, MODEL, DialectStand, dialect_stand
from tests.stand.gateway import TRANSPORTS
from tests.stand.providers.answers import Answer, Call, Part, Stop, Text, Thought
from tests.stand.providers.provider import Slicing

Json = dict[str, Any]

PROPERTY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
IDENTITY = {"id", "created"}

WORDS = st.text(min_size=1, max_size=12)
PIECES = st.lists(WORDS, min_size=1, max_size=4).map(tuple)


@st.composite
def calls(draw: st.DrawFn, number: int) -> Call:
    """A call whose arguments come in pieces that are cut anywhere."""
    arguments = draw(st.dictionaries(WORDS, st.none() | st.integers() | WORDS, max_size=3))
    said = json.dumps(arguments, ensure_ascii=draw(st.booleans())) if arguments else ""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(said) - 1)), max_size=3)))
    edges = [0, *[cut for cut in cuts if cut < len(said)], len(said)]
    pieces = [said[begin:end] for begin, end in pairwise(edges)]
    return Call(f"call_{number}", draw(st.sampled_from(["f", "g"])), tuple(filter(None, pieces)))


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Any answer: with and without reasoning, text and calls."""
    parts: list[Part] = []
    if draw(st.booleans()):
        parts.append(Thought(draw(PIECES), "c2ln"))
    if draw(st.booleans()):
        parts.append(Text(draw(PIECES)))
    parts += [draw(calls(number)) for number in range(draw(st.integers(0, 3)))]
    usual: Sequence[Stop] = ("stop", "length")
    called: Sequence[Stop] = ("tool_calls", "stop")
    calling = any(isinstance(part, Call) for part in parts)
    completion = draw(st.integers(1, 500))
    return Answer(
        parts=parts or [Text(draw(PIECES))],
        stop=draw(st.sampled_from(called if calling else usual)),
        prompt_tokens=draw(st.integers(1, 500)),
        completion_tokens=completion,
        thinking_tokens=draw(st.integers(0, completion)),
    )


def stop_of(stand: DialectStand, answer: Answer) -> str:
    """The reason to stop. Responses say only whether an answer is complete."""
    called = stand.dialect == "openai-responses" and answer.calls
    return "tool_calls" if called and answer.stop == "stop" else answer.stop


def sliced(sizes: Sequence[int]) -> Slicing:
    """Cuts bytes into pieces of these sizes, over and over."""

    def cut(data: bytes) -> Iterable[bytes]:
        at = number = 0
        while at < len(data):
            size = sizes[number % len(sizes)]
            yield data[at : at + size]
            at, number = at + size, number + 1

    return cut


SLICINGS = st.lists(st.integers(1, 90), min_size=1, max_size=8).map(sliced)


async def streamed(stand: DialectStand, slicing: Slicing | None = None) -> list[Json]:
    """The events of a stream, whose framing is checked, without their identity.

    A stream that fails before its first event is one event with the error of the 502.
    """
    stand.provider.slicing = slicing
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with stand.gateway.http.post(
        f"{stand.gateway.base_url}/chat/completions", json=request
    ) as answer:
        if answer.status == 502:
            return [await answer.json()]
        assert answer.status == 200, await answer.text()
        body = (await answer.read()).decode()
    assert body.endswith("data: [DONE]\n\n")
    data = [line for line in body.split("\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in data)
    assert body.count("[DONE]") == 1
    events = [json.loads(line.removeprefix("data: ")) for line in data[:-1]]
    chunks = [event for event in events if event.keys() != {"error"}]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    return [{key: event[key] for key in event.keys() - IDENTITY} for event in events]


async def whole(stand: DialectStand) -> Json:
    """The whole answer, without its identity."""
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    async with stand.gateway.http.post(
        f"{stand.gateway.base_url}/chat/completions", json=request
    ) as answer:
        assert answer.status == 200, await answer.text()
        found = await answer.json()
    return {key: found[key] for key in found.keys() - IDENTITY}


def folded(events: Sequence[Json]) -> Json:
    """The whole answer that a stream's events add up to, as its reader would do it."""
    message: Json = {"role": "assistant", "content": "", "refusal": None}
    made: dict[int, Json] = {}
    choice: Json = {"index": 0, "message": message, "logprobs": None}
    *chunks, last = events
    for chunk in chunks:
        (piece,) = chunk["choices"]
        delta = piece["delta"]
        for key in ("content", "reasoning_content", "reasoning_state"):
            if key in delta:
                message[key] = message.get(key, "") + delta[key]
        for call in delta.get("tool_calls", ()):
            known = made.setdefault(call["index"], call | {"function": {"arguments": ""}})
            for key, value in call["function"].items():
                known["function"][key] = known["function"].get(key, "") + value
        choice |= {k: piece[k] for k in ("finish_reason", "native_finish_reason") if k in piece}
    if made:
        message["content"] = message["content"] or None
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in made.values()
        ]
    return {
        "object": "chat.completion",
        "model": last["model"],
        "choices": [choice],
        "usage": last["usage"],
        **{key: last[key] for key in ("service_tier",) if key in last},
    }


@PROPERTY
@given(answer=answers())
async def test_an_answer_is_the_providers(stand: DialectStand, answer: Answer) -> None:
    """Text, reasoning, arguments, finish reason and tokens are equal."""
    stand.provider.say(answer)

    found = folded(await streamed(stand))

    choice, usage = found["choices"][0], found["usage"]
    message = choice["message"]
    assert (message["content"] or "") == answer.text
    assert message.get("reasoning_content", "") == answer.reasoning
    said = [json.loads(c["function"]["arguments"] or "{}") for c in message.get("tool_calls", ())]
    assert said == [json.loads(call.arguments or "{}") for call in answer.calls]
    assert choice["finish_reason"] == stop_of(stand, answer)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == answer.completion_tokens
    assert usage.get("thinking_tokens", 0) == answer.thinking_tokens


@PROPERTY
@given(answer=answers(), slicing=SLICINGS)
async def test_slicing_does_not_change_events(
    stand: DialectStand, answer: Answer, slicing: Slicing
) -> None:
    """However the provider's bytes are cut, the events are the same, one by one."""
    stand.provider.say(answer)

    assert await streamed(stand, slicing) == await streamed(stand)


@PROPERTY
@given(answer=answers())
async def test_a_whole_answer_is_the_sum_of_its_stream(stand: DialectStand, answer: Answer) -> None:
    """A whole answer is what the stream adds up to."""
    stand.provider.say(answer)

    assert await whole(stand) == folded(await streamed(stand))


@PROPERTY
@given(answer=answers(), slicing=SLICINGS, cut=st.booleans())
async def test_a_stream_ends_once(
    stand: DialectStand, answer: Answer, slicing: Slicing, cut: bool
) -> None:
    """It ends with a reason to stop, or with an error and without one.

    It fails before its first event only if it begins with a tool call, which waits for its name.
    """
    stand.provider.say(answer)
    good = await streamed(stand, slicing)
    stand.provider.say(replace(answer, breaks_off="cut" if cut else "error"))
    bad = await streamed(stand, slicing)

    reasons = [choice["finish_reason"] for event in good for choice in event["choices"]]
    assert [reason for reason in reasons if reason] == [stop_of(stand, answer)]
    assert not any("error" in event for event in good)
    assert [("error" in event) for event in bad] == [False] * (len(bad) - 1) + [True]
    assert bad[-1].keys() == {"error"}
    assert len(bad) > 1 or isinstance(answer.parts[0], Call)
    assert not any(choice["finish_reason"] for event in bad[:-1] for choice in event["choices"])
    assert good[: len(bad) - 1] == bad[:-1]


@pytest.fixture(params=TRANSPORTS)
async def far_talk(
    request: pytest.FixtureRequest, tmp_path: Path, dialect: str
) -> AsyncIterator[DialectStand]:
    """A gateway over each kind of channel."""
    async with dialect_stand(tmp_path, dialect, transport=request.param) as stand:
        yield stand


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_disconnecting_cancels_the_call(far_talk: DialectStand, stream: bool) -> None:
    """The gateway disconnects from the provider before that has finished."""
    far_talk.provider.say(Answer(parts=[Text(("Hello",))], breaks_off="stall"))
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    url = f"{far_talk.gateway.base_url}/chat/completions"
    asking = asyncio.ensure_future(far_talk.gateway.http.post(url, json=request))
    call = await far_talk.provider.request()
    if stream:
        answer = await asking
        assert await answer.content.readline()
        answer.close()
    else:
        asking.cancel()

    async with asyncio.timeout(30):
        await call.left.wait()
