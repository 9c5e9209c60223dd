"""Whole answers of providers that hang: another channel answers while the caller still waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.faults.conftest import OpenStand
from tests.faults.dialect_answers import FORMS, DialectAnswers
from tests.faults.fault_stand import (
    CHARGE,
    MESSAGES,
    MODEL,
    PROMPT_CHARGE,
    TEXT,
    FaultStand,
    fitting,
    piece,
)
from tests.stand.upstream import (
    CUT,
    RESET,
    SSE_HEAD,
    STALL,
    Request,
    Script,
    head,
    json_answer,
    sse,
)

HASTY = {"first_token_timeout_s": 0.5, "progress_timeout_s": 0.3}
LONG: dict[str, Any] = {"max_tokens": 20_000}
"""A whole answer that may be long is requested as a stream."""


@pytest.fixture(params=FORMS, ids=lambda form: form.dialect)
def form(request: pytest.FixtureRequest) -> DialectAnswers:
    """The dialect of the providers."""
    chosen: DialectAnswers = request.param
    return chosen


@pytest.fixture
async def stand(open_stand: OpenStand, form: DialectAnswers) -> FaultStand:
    """Two channels of that dialect."""
    dialect = {"dialect": form.dialect}
    return await open_stand(first={**dialect, **HASTY}, second=dialect)


def hanging_at(place: str, form: DialectAnswers) -> Script:
    """A provider that hangs there, in a document or a stream."""
    match place:
        case "before the head":
            return [STALL]
        case "after the head":
            return [head(content_length="999", content_type="application/json"), STALL]
        case "in white space":
            return [head(content_length="999", content_type="application/json"), b"  \n ", STALL]
        case "in a document":
            return [form.document[:-9], STALL]
        case "after the head of a stream":
            return [SSE_HEAD, form.ping, STALL]
    return [form.begin, STALL]


PLACES = (
    "before the head",
    "after the head",
    "in white space",
    "in a document",
    "after the head of a stream",
    "in a stream",
)


@pytest.mark.parametrize("fields", [{}, LONG], ids=["short", "long"])
@pytest.mark.parametrize("place", PLACES)
async def test_another_channel_gives_the_whole_answer(
    stand: FaultStand, form: DialectAnswers, place: str, fields: dict[str, Any]
) -> None:
    """Wherever the first one hangs. The call is charged once, for the answer that it got."""
    stand.play(hanging_at(place, form), second=form.fitting)

    reply = await stand.ask(stream=False, **fields)

    assert (reply.status, reply.content) == (200, TEXT)
    assert reply.json["choices"][0]["finish_reason"] == "stop"
    await stand.first.request()  # Which a busy machine may have read after its time.
    await stand.wait_until_disconnected(stand.first)
    assert await stand.charged() == (1, CHARGE)
    assert [len(one.requests) for one in (stand.first, stand.second)] == [1, 1]


@pytest.mark.parametrize("place", PLACES)
async def test_the_official_sdk_gets_the_other_channels_answer(
    stand: FaultStand, form: DialectAnswers, place: str
) -> None:
    """With its own timeouts, and without repeating the request."""
    stand.play(hanging_at(place, form), second=form.fitting)

    async with AsyncOpenAI(base_url=f"{stand.url}/v1", api_key=stand.key, max_retries=0) as client:
        made = await client.chat.completions.create(model=MODEL, messages=MESSAGES)

    assert made.choices[0].message.content == TEXT


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_callers_time_is_shared_by_two_channels(
    open_stand: OpenStand, streamed: bool
) -> None:
    """A caller with less time than the first event may take gets the second channel's answer.

    The first provider has the prompt, too, and the caller pays for both.
    """
    stand = await open_stand()
    stand.play([STALL], second=fitting)

    reply = await stand.ask(stream=streamed, headers={"x-pomogator-timeout": "2"})

    assert (reply.status, reply.content) == (200, TEXT)
    calls, charge = await stand.charged()
    assert calls == 1
    assert CHARGE < charge <= 2 * CHARGE


NO: Script = [json_answer({"error": {"message": "No."}}, 400)]


@pytest.mark.parametrize(("second", "prompts"), [([STALL], 2), (NO, 1)], ids=["late", "refuses"])
async def test_providers_are_paid_for_a_prompt_that_a_deadline_cuts(
    open_stand: OpenStand, second: Script, prompts: int
) -> None:
    """A call that fails costs the prompt at each provider that had no more time, and no more."""
    stand = await open_stand()
    stand.play([STALL], second=second)

    reply = await stand.ask(headers={"x-pomogator-timeout": "0.4"})

    assert reply.status >= 400
    assert await stand.charged() == (1, prompts * PROMPT_CHARGE)


async def test_a_provider_that_bills_no_abandoned_calls_is_not_paid(open_stand: OpenStand) -> None:
    """Its channel says so. Only the answer is charged."""
    stand = await open_stand(first={"bills_abandoned": False})
    stand.play([STALL], second=fitting)

    reply = await stand.ask(headers={"x-pomogator-timeout": "2"})

    assert reply.content == TEXT
    assert await stand.charged() == (1, CHARGE)


async def test_the_only_channel_has_all_of_the_callers_time(open_stand: OpenStand) -> None:
    """Where every other channel has failed, the rest of the time is not divided."""
    stand = await open_stand(second={"connect_timeout_s": 0.2})
    stand.play([RESET], second=[STALL])

    reply = await stand.ask(stream=False, headers={"x-pomogator-timeout": "1"})

    assert (reply.status, reply.code) == (504, "deadline_exceeded")


def streaming(request: Request) -> Script:
    """A provider whose answer is long: only a stream of it begins in time."""
    return fitting(request) if request.json().get("stream") else [STALL]


async def test_the_only_channel_is_asked_again_for_a_stream(open_stand: OpenStand) -> None:
    """A long answer is no fault: its stream begins in time. The next calls ask for one at once."""
    stand = await open_stand(first=HASTY, second={**HASTY, "models": {"other": "m"}})
    stand.play(streaming)

    for _ in range(2):
        reply = await stand.ask(stream=False)
        assert (reply.status, reply.content) == (200, TEXT)

    assert _streams(stand.first.requests) == [False, True, True]
    assert await stand.charged() == (2, 2 * CHARGE)


async def test_a_channel_that_is_late_is_asked_for_a_stream_after_the_others(
    stand: FaultStand, form: DialectAnswers
) -> None:
    """No answer is lost that a single channel could give."""

    def long(request: Request) -> Script:
        return form.fitting(request) if request.json().get("stream") else [STALL]

    stand.play(long, second=[RESET])

    reply = await stand.ask(stream=False)

    assert (reply.status, reply.content) == (200, TEXT)
    assert await stand.charged() == (1, CHARGE)


async def test_an_answer_with_audio_may_take_its_time(open_stand: OpenStand) -> None:
    """It is never requested as a stream, so that only the total time limits it."""
    stand = await open_stand(
        first={**HASTY, "first_token_timeout_s": 0.05, "total_timeout_s": 0.5, "pass_through": True}
    )
    stand.play([STALL], second=fitting)

    reply = await stand.ask(
        stream=False, modalities=["text", "audio"], audio={"voice": "a", "format": "wav"}
    )

    assert (reply.status, reply.content) == (200, TEXT)
    assert _streams(stand.first.requests) == [False]


async def test_all_that_break_off_are_an_error_with_its_status(
    stand: FaultStand, form: DialectAnswers
) -> None:
    """The last provider's tokens are charged, as nothing tells that they are free."""
    stand.play([form.begin, CUT], second=[form.begin, CUT])

    reply = await stand.ask(stream=False, **LONG)

    assert (reply.status, reply.code) == (502, "upstream_disconnected")
    calls, charge = await stand.charged()
    assert calls == 1
    assert 0 < charge <= CHARGE


async def test_what_broke_off_is_not_in_the_answer(open_stand: OpenStand) -> None:
    """Neither its text, nor its tokens: the caller's usage is that of one answer."""
    stand = await open_stand(first=HASTY, second=HASTY)
    begun = SSE_HEAD + sse(*(piece("lost ") for _ in range(40)))
    stand.play([begun, STALL], second=fitting)

    reply = await stand.ask(stream=False, **LONG)

    assert reply.content == TEXT
    assert await stand.charged() == (1, CHARGE)
    assert _attempts(stand) == [2]


def _streams(requests: Sequence[Request]) -> list[bool]:
    return [bool(request.json().get("stream")) for request in requests]


def _attempts(stand: FaultStand) -> list[object]:
    return [line["attempts"] for line in stand.log.of("call.ended")]
