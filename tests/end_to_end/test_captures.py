"""Every recorded exchange, served through the whole gateway, gives what its reading expects.

Each is asked for as a stream and whole, and the provider's bytes come cut per event,
per byte and at random: none of that may show.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from services.config import ChannelConfig
from tests.end_to_end import captures
from tests.stand.gateway import Gateway, running

CASES = {case["id"]: case for case in captures.load()}

SLICES = ("event", "byte", "random:7")
BYTE_MAX = 60_000
"""Larger bodies are cut at random: a write for each byte takes minutes."""

EXCEPTIONS: Mapping[str, str] = {
    "snowflake-s-stream-reasoning-c6b2": "its reading leaves out reasoning_details; we show them",
}
"""Cases whose reading we do not share, each with the reason."""


def cells() -> Sequence[Any]:
    """Return each case in events and in the smallest pieces; other cuts are nightly."""
    found = []
    for name, case in CASES.items():
        is_large = len(case["response"]["body"]) > BYTE_MAX
        for slicing in SLICES:
            if slicing != "byte" or not is_large:
                is_nightly = slicing == "random:7" and not is_large
                marks = [pytest.mark.nightly] * is_nightly
                found.append(pytest.param(name, slicing, marks=marks))
    return found


pytestmark = pytest.mark.skipif(not captures.CAPTURES, reason=captures.WHY_SKIPPED)


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway with a channel for every case and slicing."""
    async with captures.replaying() as url:
        channels = [
            ChannelConfig(
                name=f"{case['id']}/{slicing}",
                dialect=captures.dialect(case),
                base_url=f"{url}/opt/slice={slicing}/case/{case['id']}/v1",
                models={f"{case['id']}/{slicing}": case["model"] or "m"},
            )
            for case in CASES.values()
            for slicing in SLICES
        ]
        async with running(tmp_path_factory.mktemp("state"), *channels) as gateway:
            yield gateway


@pytest.mark.parametrize(("case_id", "slicing"), cells())
async def test_a_recorded_exchange_gives_its_expected_answer(
    gateway: Gateway, case_id: str, slicing: str
) -> None:
    """A streaming caller and a whole one both get the provider's answer."""
    case = CASES[case_id]
    if case_id in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[case_id])

    whole = await _ask(gateway, f"{case_id}/{slicing}", stream=False)
    captures.check(case, whole, streamed=False)
    streamed = await _ask(gateway, f"{case_id}/{slicing}", stream=True)
    captures.check(case, streamed, streamed=True)


async def _ask(gateway: Gateway, model: str, *, stream: bool) -> captures.Seen:
    request: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    url = f"{gateway.base_url}/chat/completions"
    async with gateway.http.post(url, json=request) as answer:
        if answer.content_type == "text/event-stream":
            return captures.seen_stream(answer.status, await answer.read())
        return captures.seen_whole(answer.status, await answer.json())
