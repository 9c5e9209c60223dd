"""Charges of calls for embeddings, whole, failed and abandoned, and the limits on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.config import LimitConfig
from services.embedding_limits import EmbeddingLimits
from tests.stand.embedding_provider import EmbeddingProvider, raw_document
from tests.stand.embedding_stand import NANO_PER_TOKEN, EmbeddingStand, embedding_stand
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.upstream import CUT, STALL, Script, head, json_answer

PAIRS = EmbeddingLimits(entries_max=2)
"""Limits of a model whose requests have at most two entries."""

OVERLOADED: Script = [json_answer({"error": {"message": "Overloaded"}}, 503)]
BAD_INPUT: Script = [json_answer({"error": {"message": "Bad input."}}, 400)]
BROKEN: Script = [head(content_length="100", content_type="application/json"), b'{"data":[', CUT]


async def open_and_ask(
    stand: EmbeddingStand, entries: Sequence[str], **fields: Any
) -> tuple[int, int]:
    """The status of a call of a new account, and what the account has spent then."""
    key = await stand.open_account()
    answer = await stand.ask({"input": list(entries), **fields}, key)
    return answer.status, await stand.spent_nano()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_costs_its_tokens(tmp_path: Path, transport: Transport) -> None:
    """The charge is exact over all parts, and a header has it."""
    async with embedding_stand(tmp_path, limits=PAIRS, transport=transport) as stand:
        key = await stand.open_account()
        answer = await stand.ask({"input": ["ab", "c", "defg"]}, key)

        assert len(stand.provider.requests) == 2
        assert await stand.spent_nano() == 7 * NANO_PER_TOKEN
        assert answer.headers["x-pomogator-cost"] == "0.000014"
        assert answer.json["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": 0}, {"prompt_tokens": -5}, {"prompt_tokens": "7"}, 7, []]
)
async def test_tokens_that_the_provider_does_not_count_are_counted(
    tmp_path: Path, usage: Any
) -> None:
    """The size of the texts counts: four bytes a token."""
    async with embedding_stand(tmp_path) as stand:
        stand.provider.usage = lambda _: usage
        assert await open_and_ask(stand, ["12345678", "1234"]) == (200, 3 * NANO_PER_TOKEN)


async def test_a_call_costs_the_parts_before_the_one_that_failed(tmp_path: Path) -> None:
    """The provider has billed them."""
    async with embedding_stand(tmp_path, limits=PAIRS) as stand:
        stand.provider.usage = _failing_after(stand.provider, 1, OVERLOADED)
        assert await open_and_ask(stand, ["ab", "c", "defg"]) == (503, 3 * NANO_PER_TOKEN)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (OVERLOADED, 503),
        (BROKEN, 502),
        ([CUT], 502),
        (
            [
                json_answer(
                    {"error": {"message": "Bad input", "type": "invalid_request_error"}}, 400
                )
            ],
            400,
        ),
        ([json_answer({"message": "no such model"}, 404)], 400),
        ([json_answer({"error": {"message": "It failed."}})], 502),
        (raw_document("[]"), 502),
        (raw_document("{"), 502),
        (raw_document('{"data":null}'), 502),
        (raw_document('{"data":{}}'), 502),
        ([head(content_type="text/event-stream") + b"data: {}\n\n", CUT], 502),
        ([json_answer("a")], 502),
    ],
)
async def test_a_call_that_a_provider_fails_costs_nothing(
    tmp_path: Path, script: Script, status: int
) -> None:
    """It has no vector."""
    async with embedding_stand(tmp_path) as stand:
        stand.provider.scripts += [script] * 3
        assert await open_and_ask(stand, ["abcd"]) == (status, 0)


@pytest.mark.parametrize(("bills", "cost"), [(True, 2 * NANO_PER_TOKEN), (False, 0)])
async def test_a_caller_that_leaves_pays_what_the_provider_bills(
    tmp_path: Path, bills: bool, cost: int
) -> None:
    """It pays for the part that the provider has, as the gateway counts it."""
    async with embedding_stand(tmp_path, channels=[{"bills_abandoned": bills}]) as stand:
        key = await stand.open_account()
        stand.provider.scripts.append([STALL])
        call = asyncio.create_task(stand.ask({"input": ["12345678"]}, key))
        request = await stand.provider.request(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await request.left.wait()
        await stand.settled()

        assert await stand.spent_nano() == cost


@pytest.mark.parametrize("script", [OVERLOADED, BROKEN, [CUT], raw_document('{"data":[]}')])
async def test_another_channel_of_the_model_answers(tmp_path: Path, script: Script) -> None:
    """The first one may have given an answer that cannot be read."""
    providers = EmbeddingProvider(), EmbeddingProvider()
    async with embedding_stand(tmp_path, *providers) as stand:
        stand.provider.scripts += [script] * 3
        assert await open_and_ask(stand, ["abcd"]) == (200, 4 * NANO_PER_TOKEN)
        assert [len(each.requests) for each in providers] == [1, 1]


async def test_a_part_may_come_from_another_channel(tmp_path: Path) -> None:
    """Each part has the attempts of a call, and vectors as long as those before it."""
    providers = EmbeddingProvider(), EmbeddingProvider()
    async with embedding_stand(tmp_path, *providers, limits=PAIRS) as stand:
        stand.provider.usage = _failing_after(stand.provider, 1, OVERLOADED)
        assert await open_and_ask(stand, ["ab", "c", "defg"]) == (200, 7 * NANO_PER_TOKEN)
        assert [list(each.entries) for each in providers] == [[["ab", "c"], ["defg"]], [["defg"]]]


async def test_a_late_part_costs_what_its_own_providers_bill(tmp_path: Path) -> None:
    """A channel that bills abandoned calls was late for the first part, and another one answered.

    That one is late for the second part, and bills no abandoned calls.
    """
    providers = EmbeddingProvider(), EmbeddingProvider()
    late = {"total_timeout_s": 0.3}
    channels = [{**late, "bills_abandoned": True}, {**late, "bills_abandoned": False}]
    async with embedding_stand(tmp_path, *providers, limits=PAIRS, channels=channels) as stand:
        providers[0].scripts += [[STALL], *[OVERLOADED] * 6]
        providers[1].usage = _failing_after(providers[1], 1, [STALL])
        status, spent = await open_and_ask(stand, ["ab", "c", "defg"])

        assert status in {502, 503, 504}
        assert [list(each.entries) for each in providers][1][:2] == [["ab", "c"], ["defg"]]
        assert spent == 3 * NANO_PER_TOKEN


async def test_vectors_of_another_length_are_never_joined(tmp_path: Path) -> None:
    """They are of another model, although both channels name the same one."""
    providers = EmbeddingProvider(dimensions=8), EmbeddingProvider(dimensions=9)
    async with embedding_stand(tmp_path, *providers, limits=PAIRS) as stand:
        stand.provider.usage = _failing_after(stand.provider, 1, OVERLOADED)
        status, spent = await open_and_ask(stand, ["ab", "c", "defg"])

        assert (status, spent) == (502, 3 * NANO_PER_TOKEN)


async def test_an_account_without_money_is_refused(tmp_path: Path) -> None:
    """No provider is asked. The hold is for the most tokens that the entries may have."""
    async with embedding_stand(tmp_path) as stand:
        key = await stand.open_account(NANO_PER_TOKEN)
        answer = await stand.ask({"input": "a text of more than one token"}, key)

        assert (answer.status, answer.code) == (402, "insufficient_quota")
        assert not stand.provider.requests
        assert await stand.spent_nano(NANO_PER_TOKEN) == 0


async def test_a_provider_that_counts_more_than_the_balance_ends_the_call(tmp_path: Path) -> None:
    """The parts so far are charged, up to the balance."""
    credit = 40 * NANO_PER_TOKEN
    async with embedding_stand(tmp_path, limits=PAIRS) as stand:
        key = await stand.open_account(credit)
        stand.provider.usage = lambda _: {"prompt_tokens": 1000}
        answer = await stand.ask({"input": ["ab", "c", "d"]}, key)

        assert answer.status == 402
        assert len(stand.provider.requests) == 1
        assert 0 < await stand.spent_nano(credit) <= credit


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_limits_hold(tmp_path: Path, transport: Transport) -> None:
    """A key has limits on requests and tokens, and answers have their headers."""
    async with embedding_stand(tmp_path, transport=transport) as stand:
        key = await stand.open_account(requests_per_minute=1, tokens_per_minute=1000)
        first = await stand.ask({"input": "abcd"}, key)
        second = await stand.ask({"input": "abcd"}, key)

        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-tokens"] == "994"
        assert (second.status, second.code) == (429, "rate_limit_exceeded")
        assert int(second.headers["Retry-After"]) > 0


async def test_a_scope_without_the_model_is_refused(tmp_path: Path) -> None:
    """The status is 403."""
    async with embedding_stand(tmp_path) as stand:
        key = await stand.open_account(models=["house/other"])
        answer = await stand.ask({"input": "a"}, key)

        assert (answer.status, answer.code) == (403, "model_not_allowed")


async def test_a_limit_of_a_channel_sends_the_part_to_the_next(tmp_path: Path) -> None:
    """Completions do the same."""
    providers = EmbeddingProvider(), EmbeddingProvider()
    rules = [LimitConfig(channel="embed-0", rpm=1)]
    async with embedding_stand(tmp_path, *providers, rules=rules, limits=PAIRS) as stand:
        answer = await stand.ask({"input": ["a", "b", "c"]})

        assert answer.status == 200
        assert [len(each.requests) for each in providers] == [1, 1]


async def test_a_deadline_ends_the_call_and_its_request(tmp_path: Path) -> None:
    """The status is 504."""
    async with embedding_stand(tmp_path) as stand:
        stand.provider.scripts.append([STALL])
        answer = await stand.ask({"input": "a"}, headers={"x-pomogator-timeout": "0.3"})

        assert answer.status == 504
        await stand.provider.requests[0].left.wait()


def _failing_after(provider: EmbeddingProvider, answers: int, script: Script) -> Any:
    """Counts tokens of a provider, which fails its requests after some answers."""
    given = 0

    def usage(entries: Sequence[Any]) -> dict[str, int]:
        nonlocal given
        given += 1
        if given == answers:
            provider.scripts += [script] * 3
        return {"prompt_tokens": sum(map(len, entries))}

    return usage
