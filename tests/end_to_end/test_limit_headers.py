"""`x-ratelimit-…` headers on every answer to a call whose key and model are known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.config import LimitConfig
from tests.stand.billing_stand import (
    FORMS,
    MODEL,
    NANO,
    BillingStand,
    bearer,
    billing_stand,
    piece,
)
from tests.stand.clock import FakeClock
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.response import ReadResponse, read
from tests.stand.upstream import CUT, SSE_HEAD, json_answer, sse

RULES = [LimitConfig(key="*", rpm=4, tpm=6000)]
NAMES = {f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset")
         for of in ("requests", "tokens")}  # fmt: skip


def shown(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the limit headers of an answer."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if name.startswith("x-ratelimit-")}


async def ask(
    stand: BillingStand, key: str, form: str = "json", name: str = "", **fields: Any
) -> ReadResponse:
    """One completion, which may have a name."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 20,
        "stream": form == "sse",
        **fields,
    }
    named = {"Idempotency-Key": name} if name else {}
    url = f"{stand.gateway.base_url}/chat/completions"
    async with stand.gateway.http.post(url, json=body, headers=bearer(key) | named) as response:
        return await read(response)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_answers_and_refusals_have_all_limit_headers(
    tmp_path: Path, transport: Transport, form: str
) -> None:
    """An answer, its replay, 402, 409, 422, 429 and a provider's failure have all six."""
    clock = FakeClock()
    async with billing_stand(tmp_path, transport=transport, limits=RULES, clock=clock) as stand:
        key = await stand.open(credit_nano=NANO)
        seen: list[ReadResponse] = []

        async def remaining(answer: ReadResponse, status: int) -> int:
            seen.append(answer)
            assert answer.status == status
            assert shown(answer.headers).keys() == NAMES
            return int(answer.headers["x-ratelimit-remaining-requests"])

        assert await remaining(await ask(stand, key, form, "order"), 200) == 3
        await stand.settled(key)
        assert await remaining(await ask(stand, key, form, "order"), 200) == 3
        assert seen[-1].headers["idempotency-replayed"] == "true"
        assert await remaining(await ask(stand, key, form, "order", seed=1), 422) == 3
        stand.script = [json_answer({"error": {"message": "no"}}, 400)]
        assert await remaining(await ask(stand, key, form), 400) == 3
        stand.script = [CUT]
        assert await remaining(await ask(stand, key, form), 502) == 3
        stand.script = ()
        for left in (2, 1, 0):
            assert await remaining(await ask(stand, key, form), 200) == left
        assert await remaining(await ask(stand, key, form), 429) == 0
        assert seen[-1].headers["x-ratelimit-limit-requests"] == "4"
        assert await remaining(await ask(stand, key, form, "order"), 200) == 0


@pytest.mark.parametrize("form", FORMS)
async def test_402_and_409_use_up_no_limit(tmp_path: Path, form: str) -> None:
    """A call without money draws no limit, nor does one beside a running equal call."""
    async with billing_stand(tmp_path, limits=RULES, clock=FakeClock()) as stand:
        poor = await stand.open(credit_nano=0)
        refused = await ask(stand, poor, form)
        assert refused.status == 402
        assert shown(refused.headers) == {
            "x-ratelimit-limit-requests": "4",
            "x-ratelimit-remaining-requests": "4",
            "x-ratelimit-reset-requests": "0ms",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-tokens": "6000",
            "x-ratelimit-reset-tokens": "0ms",
        }
        goes_on = asyncio.Event()
        stand.before = [goes_on]
        rich = stand.gateway.key
        running = asyncio.create_task(ask(stand, rich, form, "order"))
        await stand.upstream.request()
        busy = await ask(stand, rich, form, "order")
        goes_on.set()

        assert (await running).status == 200
        assert (busy.status, busy.headers["x-ratelimit-remaining-requests"]) == (409, "3")


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ([], set()),
        ([LimitConfig(key="*", concurrency=3)], set()),
        ([LimitConfig(key="*", rpm=4)], {name for name in NAMES if name.endswith("requests")}),
    ],
)
async def test_an_unlimited_dimension_has_no_header(
    tmp_path: Path, rules: Sequence[LimitConfig], names: set[str]
) -> None:
    """No number would be true, and clients treat the headers as optional."""
    async with billing_stand(tmp_path, limits=rules) as stand:
        for form in FORMS:
            assert shown((await ask(stand, stand.gateway.key, form)).headers).keys() == names


async def test_an_unknown_key_or_model_gets_no_limit_headers(tmp_path: Path) -> None:
    """Without a known key and model there is no limit to report."""
    async with billing_stand(tmp_path, limits=RULES) as stand:
        for key, model in ((f"sk-pg-{'x' * 49}", MODEL), (stand.gateway.key, "nobody/s")):
            refused = await ask(stand, key, model=model)
            assert refused.status in {400, 401}
            assert not shown(refused.headers)


async def test_a_truncated_stream_has_the_headers(tmp_path: Path) -> None:
    """They were sent with the head of the response."""
    async with billing_stand(tmp_path, limits=RULES) as stand:
        stand.script = [SSE_HEAD, sse(piece("Hello")), CUT]
        async with stand.gateway.http.post(
            f"{stand.gateway.base_url}/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True},
        ) as response:
            assert shown(response.headers).keys() == NAMES
            assert b'"error"' in await response.read()
