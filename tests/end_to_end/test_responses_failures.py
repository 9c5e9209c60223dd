"""Failures of Responses that no repeat can mend, as clients get them that accept events alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.stand.billing_stand import MODEL, BillingStand, billing_stand
from tests.stand.response_events import read_response_events
from tests.stand.responses_stand import RESPONSES, ask
from tests.stand.upstream import json_answer

EVENTS = "text/event-stream"
CHANNELS: Mapping[str, Mapping[str, Any]] = {
    "translated": {"dialect": "openai"},
    "as it is": RESPONSES,
}
EXHAUSTED: Mapping[int, Mapping[str, str | None]] = {
    402: {"message": "Payment required.", "code": None},
    429: {"message": "You exceeded your current quota.", "code": "insufficient_quota"},
}
"""How providers say that an account has no money."""

each_lane = pytest.mark.parametrize("lane", CHANNELS)


async def asked(
    stand: BillingStand, key: str, accept: str, *, stream: bool = True
) -> tuple[int, Mapping[str, str], bytes]:
    """Ask for a response of a longest length."""
    body = {"model": MODEL, "input": "Hello", "stream": stream, "max_output_tokens": 20}
    return await ask(stand, key, json.dumps(body).encode(), accept=accept)


def failed(received: bytes) -> Any:
    """The error of a stream that is nothing but a failed response."""
    created, begun, last = read_response_events(received.decode())
    assert created["response"]["model"] == begun["response"]["model"] == MODEL
    assert last["type"] == "response.failed"
    return last["response"]["error"]


@each_lane
async def test_an_exhausted_balance_is_402_or_a_failed_response(tmp_path: Path, lane: str) -> None:
    """The latter is for clients that accept events alone."""
    async with billing_stand(tmp_path, channel=CHANNELS[lane]) as stand:
        key = await stand.open(credit_nano=1_000)
        for accept, stream in (("*/*", True), ("application/json", True), (EVENTS, False)):
            status, headers, received = await asked(stand, key, accept, stream=stream)
            assert (status, headers["x-should-retry"]) == (402, "false")
            assert json.loads(received)["error"]["code"] == "insufficient_quota"
        status, headers, received = await asked(stand, key, EVENTS)
        assert status == 200
        assert headers["content-type"].startswith(EVENTS)
        assert failed(received)["code"] == "insufficient_quota"
        assert stand.upstream.requests == []
        assert await stand.balance(key) == 1_000


@each_lane
@pytest.mark.parametrize("status", EXHAUSTED)
async def test_a_provider_account_without_money(tmp_path: Path, lane: str, status: int) -> None:
    """502 that is not to be repeated; or a failed response, with the code of an exhausted quota.

    So it stays while the channel is left alone after that.
    """
    async with billing_stand(tmp_path, channel=CHANNELS[lane]) as stand:
        error = {**EXHAUSTED[status], "type": "insufficient_quota", "param": None}
        stand.script = [json_answer({"error": error}, status)]
        for _ in range(2):
            answered, _, received = await asked(stand, stand.gateway.key, EVENTS)
            assert answered == 200
            assert failed(received)["code"] == "insufficient_quota"
            answered, headers, _ = await asked(stand, stand.gateway.key, "application/json")
            assert (answered, headers["x-should-retry"]) == (502, "false")


async def test_a_failure_that_a_repeat_may_mend_keeps_its_status(tmp_path: Path) -> None:
    """Clients wait and repeat the request."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = [json_answer({"error": {"message": "Busy."}}, 503)]
        answered, _, _ = await asked(stand, stand.gateway.key, EVENTS)
        assert answered == 503
