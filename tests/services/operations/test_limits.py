"""Limits as operators see them: rules and keys, with their current use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.config import LimitConfig
from services.operations.limit_report import USES_MAX
from tests.stand.billing_stand import MODEL, BillingStand, billing_stand
from tests.stand.clock import FakeClock


@asynccontextmanager
async def limited(state: Path, *rules: LimitConfig) -> AsyncIterator[tuple[BillingStand, Any]]:
    """A gateway with these rules, and the stub of OperationsService. No use runs out with time."""
    async with (
        billing_stand(state, limits=rules, clock=FakeClock()) as stand,
        stand.gateway.service.operators_channel() as channel,
    ):
        yield stand, pb_grpc.OperationsServiceStub(channel)


async def limits_of(stub: Any) -> list[pb.Limit]:
    """All limits."""
    return list((await stub.ListLimits(pb.ListLimitsRequest())).limits)


async def test_each_rule_is_listed_before_any_call(tmp_path: Path) -> None:
    """One row for each limit, in their order. A rule with one counter has it from the start."""
    rules = (
        LimitConfig(key="*", rpm=60, concurrency=4),
        LimitConfig(model=MODEL, tpm=1000),
        LimitConfig(channel="house", rpm=9),
    )
    async with limited(tmp_path, *rules) as (_, stub):
        found = await limits_of(stub)

    selected = [(each.key_id, each.model, each.channel, each.limit) for each in found]
    assert selected == [("*", "", "", 60), ("*", "", "", 4), ("", MODEL, "", 1000),
                        ("", "", "house", 9)]  # fmt: skip
    assert [each.kind for each in found] == [1, 3, 2, 1]
    assert [each.use_count for each in found] == [0, 0, 1, 1]
    assert {use.used for each in found for use in each.uses} == {0.0}


async def test_calls_show_in_all_limits_that_count_them(tmp_path: Path) -> None:
    """By key, model and channel, and in the own limits of the key."""
    rules = (
        LimitConfig(key="*", model="*", rpm=3),  # So low that little drains meanwhile.
        LimitConfig(model="*", tpm=300),
        LimitConfig(channel="*", concurrency=5),
        LimitConfig(key="key-of-nobody", rpm=1),
    )
    async with limited(tmp_path, *rules) as (stand, stub):
        key, own = await stand.open(), await stand.open(requests_per_minute=2)
        for secret in (key, key, own):
            assert (await stand.ask(secret)).status == 200
        await stand.settled(own)
        by_pair, by_model, by_channel, foreign, of_key = await limits_of(stub)

    assert (by_pair.use_count, by_model.use_count) == (2, 1)
    assert 1 < by_pair.uses[0].used <= 2
    assert 0 < by_pair.uses[1].used <= 1
    assert {use.model for use in (*by_pair.uses, *by_model.uses)} == {MODEL}
    assert by_model.uses[0].used > 3
    assert (by_channel.uses[0].channel, by_channel.uses[0].used) == ("house", 0)
    assert [use.used for use in foreign.uses] == [0]
    assert (of_key.from_key, of_key.limit, of_key.use_count) == (True, 2, 1)
    assert of_key.key_id == of_key.uses[0].key_id == by_pair.uses[1].key_id
    assert 0 < of_key.uses[0].used <= 1


async def test_the_fullest_counters_are_listed(tmp_path: Path) -> None:
    """Fullest first, and how many there are."""
    async with limited(tmp_path, LimitConfig(key="*", rpm=2)) as (stand, stub):
        keys = [await stand.open() for _ in range(USES_MAX + 2)]
        for number, key in enumerate(keys):
            for _ in range(1 + (number == 5)):
                assert (await stand.ask(key)).status == 200
        (limit,) = await limits_of(stub)

    used = [use.used for use in limit.uses]
    assert limit.use_count == USES_MAX + 2
    assert len(used) == USES_MAX
    assert used == sorted(used, reverse=True)
    assert used[0] > 1.5 > used[1]
