from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.off_loop import OFF_LOOP_BYTES
from services.domain.conversation import Message, TextPart
from services.domain.events import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.spec import ChatCompletionSpec, Tool
from services.domain.usage import COMPLETION_SHARES, NOT_REPORTED, PROMPT_SHARES, Usage
from services.metering.tokens import TokenCounter, count_prompt
from services.metering.usage import COUNT_MAX, Unseen, UsageMeter

SPEC = ChatCompletionSpec(
    model="m", messages=[Message(role="user", content=[TextPart(text="How are you today?")])]
)
COUNTER = TokenCounter()
PROMPT = count_prompt(SPEC, COUNTER)


def finished(**counts: int) -> Finished:
    """Last event, with the provider's usage."""
    return Finished(usage=msgspec.convert(counts, Usage))


def meter(*events: Event, max_tokens: int = COUNT_MAX) -> UsageMeter:
    """Meter that has counted these events."""
    meter = UsageMeter(SPEC, COUNTER, max_tokens=max_tokens)
    meter.add(events)
    return meter


def test_no_completion_of_a_refused_answer_is_billed() -> None:
    """The provider's zero counts where it refused to answer, whatever the refusal says."""
    refusal = RefusalDelta("I cannot help with that.")
    cases: Sequence[tuple[FinishReason, bool]] = (("content_filter", False), ("stop", True))
    for reason, billed in cases:
        stop = ChoiceFinished(finish_reason=reason)
        found = meter(refusal, stop, finished(prompt_token_count=90)).metered()

        assert found.usage.prompt_token_count == 90
        assert bool(found.usage.completion_token_count) == billed
        assert bool(found.flags) == billed


def test_plausible_usage_of_the_provider_is_billed() -> None:
    """The provider's usage is billed, with the provider as its source."""
    end = finished(
        prompt_token_count=90,
        completion_token_count=20,
        thinking_token_count=5,
        cache_read_token_count=30,
        cache_write_token_count=40,
        cache_write_1h_token_count=10,
    )

    metered = meter(TextDelta("fine"), end).metered()

    assert metered.flags == ()
    assert metered.counter is None
    assert metered.usage == Usage(
        prompt_token_count=90,
        completion_token_count=20,
        total_token_count=110,
        thinking_token_count=5,
        cache_read_token_count=30,
        cache_write_token_count=40,
        cache_write_1h_token_count=10,
        source="provider",
    )


def test_usage_of_a_drained_answer_is_marked() -> None:
    """Usage after the caller has left has the source `drained`."""
    watch = meter(TextDelta("fine"))
    watch.drain()
    watch.add([finished(prompt_token_count=9, completion_token_count=2)])

    assert watch.metered().usage.source == "drained"


@pytest.mark.parametrize("end", [(), (finished(),), (Finished(),)])
def test_tokens_are_counted_without_usage_of_the_provider(end: Sequence[Event]) -> None:
    """Without usage, or with zeros, text, reasoning, refusals and tool calls are counted."""
    metered = meter(
        TextDelta("12345678"),
        ReasoningDelta("1234"),
        ToolCallDelta(name="name", arguments="argument"),
        RefusalDelta("12345678"),
        *end,
    ).metered()

    assert metered.counter == "estimate"
    assert metered.usage == Usage(
        prompt_token_count=PROMPT,
        completion_token_count=8,
        thinking_token_count=1,
        total_token_count=PROMPT + 8,
        source="counted",
    )


def test_a_cut_answer_keeps_the_reported_prompt() -> None:
    """The prompt is billed as reported at the start, the completion as received."""
    reported = Usage(prompt_token_count=500, cache_read_token_count=400, completion_token_count=1)

    metered = meter(TextDelta("x" * 400)).metered(reported)

    assert metered.usage.prompt_token_count == 500
    assert metered.usage.cache_read_token_count == 400
    assert metered.usage.completion_token_count == 100
    assert metered.usage.source == "counted"


def test_the_usage_is_available_at_any_time() -> None:
    """The count grows with the answer, and reading it changes nothing."""
    watch = meter()
    seen = []
    for _ in range(5):
        watch.add([TextDelta("12345678")])
        seen.append(watch.metered().usage.completion_token_count)
        assert watch.metered().usage.completion_token_count == seen[-1]

    assert seen == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("counts", "max_tokens", "flag", "expected"),
    [
        ({"completion_token_count": -5}, COUNT_MAX, "completion_replaced", (10, 2)),
        ({"completion_token_count": 5000}, 1000, "completion_replaced", (10, 2)),
        ({"completion_token_count": COUNT_MAX + 1}, COUNT_MAX, "completion_replaced", (10, 2)),
        ({"completion_token_count": 0}, COUNT_MAX, "completion_replaced", (10, 2)),
        (
            {"prompt_token_count": 10**15, "completion_token_count": 3},
            COUNT_MAX,
            "prompt_replaced",
            (PROMPT, 3),
        ),
        (
            {"prompt_token_count": 0, "completion_token_count": 3},
            COUNT_MAX,
            "prompt_replaced",
            (PROMPT, 3),
        ),
    ],
)
def test_implausible_usage_is_replaced(
    counts: dict[str, int], max_tokens: int, flag: str, expected: tuple[int, int]
) -> None:
    """Implausible counts are replaced by our own count, and flagged."""
    end = finished(**({"prompt_token_count": 10} | counts))

    metered = meter(TextDelta("12345678"), end, max_tokens=max_tokens).metered()

    assert metered.flags == (flag,)
    assert metered.usage.source == "counted"
    usage = metered.usage
    assert (usage.prompt_token_count, usage.completion_token_count) == expected


def test_a_counted_prompt_has_what_was_cached() -> None:
    """A provider that reports only the cached part of a prompt read at least that part."""
    counts = {"completion_token_count": 2, "cache_write_token_count": 300}
    ended = meter(TextDelta("fine"), finished(**counts, cache_read_token_count=900)).metered()
    cut = meter(TextDelta("fine")).metered(Usage(cache_read_token_count=1200))

    for usage in (ended.usage, cut.usage):
        assert usage.prompt_token_count == 1200
        assert usage.source == "counted"
    assert ended.usage.cache_read_token_count == 900


def test_a_small_excess_is_plausible() -> None:
    """Providers may complete the last word, in each choice."""
    spec = ChatCompletionSpec(model="m", n=2)
    watch = UsageMeter(spec, COUNTER, max_tokens=200)
    watch.add([finished(prompt_token_count=1, completion_token_count=210)])

    assert watch.metered().flags == ()


def test_parts_are_clipped_to_their_total() -> None:
    """Parts that exceed their total are clipped to it, and flagged."""
    metered = meter(
        finished(
            prompt_token_count=10,
            cache_read_token_count=8,
            cache_write_token_count=5,
            completion_token_count=3,
            thinking_token_count=9,
        )
    ).metered()

    assert metered.flags == ("cache_write_clipped", "thinking_clipped")
    assert metered.usage.cache_write_token_count == 2
    assert metered.usage.thinking_token_count == 3


COUNTS = [name for name in Usage.__struct_fields__ if name.endswith("_token_count")]

numbers = st.integers(-(2**62), 2**62) | st.integers(-3, 50)
counts = st.fixed_dictionaries(dict.fromkeys(COUNTS, numbers))
deltas = st.builds(TextDelta, st.text(max_size=9)) | st.builds(ReasoningDelta, st.text(max_size=9))


@given(st.lists(deltas), counts, counts, st.booleans())
def test_billed_usage_is_consistent(
    events: list[Event],
    final: dict[str, int],
    reported: dict[str, int],
    ends: bool,
) -> None:
    """For any report no part is negative or exceeds its total, and totals add up."""
    watch = meter(*events, *([finished(**final)] if ends else []), max_tokens=100)

    usage = watch.metered(msgspec.convert(reported, Usage)).usage

    assert min(getattr(usage, name) for name in COUNTS) >= 0
    cached = usage.cache_read_token_count + usage.cache_write_token_count
    assert cached <= usage.prompt_token_count <= COUNT_MAX
    assert usage.cache_write_1h_token_count <= usage.cache_write_token_count
    assert usage.thinking_token_count <= usage.completion_token_count <= COUNT_MAX
    for total, shares in (
        (usage.prompt_token_count, PROMPT_SHARES),
        (usage.completion_token_count, COMPLETION_SHARES),
    ):
        assert max(getattr(usage, name) for name in shares) <= total
    total = usage.prompt_token_count + usage.completion_token_count
    assert usage.total_token_count == total
    assert usage.source


def test_a_prompt_of_no_tokens_is_not_believed() -> None:
    """Some servers count the answer alone."""
    metered = meter(TextDelta("fine"), finished(completion_token_count=1)).metered()

    assert metered.usage.prompt_token_count == PROMPT
    assert metered.usage.completion_token_count == 1
    assert metered.flags == ("prompt_replaced",)


MARK = b'{"type":"ephemeral"}'
FOR_AN_HOUR = b'{"type":"ephemeral","ttl":"1h"}'
MARKED = TextPart(text="Hello", cache_control_json=FOR_AN_HOUR)


@pytest.mark.parametrize(
    ("places", "hour"),
    [
        ({"cache_control_json": MARK}, False),
        ({"cache_control_json": FOR_AN_HOUR}, True),
        ({"tools": [Tool(name="f", cache_control_json=FOR_AN_HOUR)]}, True),
        (
            {"tools": [Tool(name="f", other_json=b'{"type":"x","cache_control":{"ttl":"1h"}}')]},
            True,
        ),
        ({"messages": [Message(role="user", cache_control_json=MARK)]}, False),
        (
            {
                "messages": [
                    Message(role="user", content=[TextPart(cache_control_json=FOR_AN_HOUR)])
                ]
            },
            True,
        ),
    ],
)
def test_a_marked_prompt_of_an_ended_call_is_a_cache_write(places: Any, *, hour: bool) -> None:
    """Which costs more than other tokens, and is not known before the provider's count."""
    spec = msgspec.structs.replace(SPEC, **places)
    usage = UsageMeter(spec, COUNTER).metered(None, Unseen()).usage

    assert usage.cache_write_token_count == usage.prompt_token_count > 0
    assert usage.cache_write_1h_token_count == (usage.prompt_token_count if hour else 0)


class ThreadedCounter(TokenCounter):
    """Counter that notes its threads."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def count(self, text: str) -> int:
        """Count, in whatever thread this is."""
        self.threads.add(threading.get_ident())
        return super().count(text)


@pytest.mark.parametrize(("chars", "on_loop"), [(100, True), (OFF_LOOP_BYTES + 1, False)])
async def test_a_large_prompt_is_counted_off_the_loop(chars: int, *, on_loop: bool) -> None:
    """The start of a stream tells the usage of a prompt that its provider has not counted yet."""
    spec = ChatCompletionSpec(
        model="m", messages=[Message(role="user", content=[TextPart(text="a" * chars)])]
    )
    counter = ThreadedCounter()
    meter = UsageMeter(spec, counter)
    await meter.prepare_prompt_usage(None)

    assert (counter.threads == {threading.get_ident()}) == on_loop
    counter.threads.clear()
    assert meter.prompt_usage(None).prompt_token_count == count_prompt(spec, COUNTER)
    assert not counter.threads


async def test_the_start_of_a_stream_has_the_providers_count_of_the_prompt() -> None:
    """Without a count of ours."""
    counter = ThreadedCounter()
    meter, known = UsageMeter(SPEC, counter), Usage(prompt_token_count=90)
    await meter.prepare_prompt_usage(known)
    usage = meter.prompt_usage(known)

    assert (usage.prompt_token_count, usage.source) == (90, "provider")
    assert not counter.threads


def test_a_prompt_that_the_provider_has_counted_is_charged_as_it_says() -> None:
    """Also where the caller ended the call, and whatever the request asked for."""
    spec = msgspec.structs.replace(SPEC, cache_control_json=MARK)
    reported = Usage(prompt_token_count=50, cache_write_token_count=7)
    usage = UsageMeter(spec, COUNTER).metered(reported, Unseen(prompt_tokens=1_000)).usage

    assert (usage.prompt_token_count, usage.cache_write_token_count) == (50, 7)


@pytest.mark.parametrize(("mark", "kept"), [(b"", 0), (MARK, 0), (FOR_AN_HOUR, 7)])
def test_writes_of_unknown_time_are_kept_as_long_as_the_request_asks(
    mark: bytes, kept: int
) -> None:
    """In the whole usage, at the start of a stream, and where the caller leaves."""
    spec = msgspec.structs.replace(SPEC, cache_control_json=mark)
    reported = Usage(
        prompt_token_count=50,
        completion_token_count=3,
        cache_write_token_count=7,
        cache_write_1h_token_count=NOT_REPORTED,
    )
    ended = UsageMeter(spec, COUNTER)
    ended.add([Finished(usage=reported)])

    for usage in (
        ended.metered().usage,
        UsageMeter(spec, COUNTER).metered(reported).usage,
        UsageMeter(spec, COUNTER).metered(reported, Unseen()).usage,
        UsageMeter(spec, COUNTER).prompt_usage(reported),
    ):
        assert (usage.cache_write_token_count, usage.cache_write_1h_token_count) == (7, kept)
