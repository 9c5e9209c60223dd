"""Two tenants and the call log: neither sees anything of the other, whatever it guesses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.calls.v1 import call_service_pb2 as pb

from tests.stand.billing_stand import NANO, billing_stand
from tests.stand.call_log import CallLogStand, call_log_stand, rows_of

GUESSES: tuple[dict[str, Any], ...] = (
    {},
    {"key_id": "the other's"},
    {"model": "house/model"},
    {"end": "stop"},
    {"session_id": "shared"},
    {"end_user": "u"},
    {"request_id": "the other's"},
)


@dataclass(frozen=True, slots=True)
class Tenants:
    """A log with a call of each of two accounts."""

    log: CallLogStand
    secrets: dict[str, str]
    calls: dict[str, pb.Call]

    def metadata(self, account: str) -> Any:
        """Return the metadata of a tenant's calls."""
        return (("authorization", f"Bearer {self.secrets[account]}"),)

    def guess(self, guess: dict[str, Any]) -> dict[str, Any]:
        """Return a filter with the names of the other tenant's call."""
        other = self.calls["other"]
        names = {"key_id": other.key_id, "request_id": other.request_id}
        return {name: names.get(name, value) for name, value in guess.items()}


@pytest.fixture
async def tenants(tmp_path: Path, each_database_url: str) -> AsyncIterator[Tenants]:
    """Two tenants, in each database."""
    async with (
        billing_stand(tmp_path, database_url=each_database_url) as stand,
        call_log_stand(stand) as log,
    ):
        secrets = {name: await stand.open_account(name, NANO) for name in ("acme", "other")}
        for name, secret in secrets.items():
            answer = await stand.ask(secret, user="u", prompt_cache_key="shared")
            assert answer.status == 200, name
        calls = {call.account: call for call in await log.all_calls()}
        yield Tenants(log, secrets, calls)


@pytest.mark.parametrize("guess", GUESSES, ids=str)
async def test_lists_exports_and_sums_are_of_the_own_account(
    tenants: Tenants, guess: dict[str, Any]
) -> None:
    """Whatever is selected, rows and sums are those of the account of the key."""
    callers, metadata = tenants.log.callers, tenants.metadata("acme")
    selected = tenants.guess(guess)

    listed = await callers.ListCalls(pb.ListCallsRequest(**selected), metadata=metadata)
    assert {call.account for call in listed.calls} <= {"acme"}

    _, text = await tenants.log.text(tenants.secrets["acme"], **selected)
    assert {row["account"] for row in rows_of(text)} <= {"acme"}

    names = {name: selected[name] for name in selected if name in {"key_id", "model", "end"}}
    request = pb.AggregateCallsRequest(group_by=[pb.CALL_DIMENSION_ACCOUNT], **names)
    summed = await callers.AggregateCalls(request, metadata=metadata)
    assert {group.account for group in summed.groups} <= {"acme"}
    assert sum(group.call_count for group in summed.groups) <= 1

    by_user = pb.AggregateCallsRequest(
        end_user=selected.get("end_user", ""),
        group_by=[pb.CALL_DIMENSION_ACCOUNT, pb.CALL_DIMENSION_END_USER],
    )
    of_users = await callers.AggregateCalls(by_user, metadata=metadata)
    assert [(group.account, group.call_count) for group in of_users.groups] == [("acme", 1)]


async def test_another_account_cannot_be_named(tenants: Tenants) -> None:
    """The account of another tenant is refused like one that does not exist."""
    callers, metadata = tenants.log.callers, tenants.metadata("acme")
    refusals = set()
    for name in ("other", "nowhere"):
        for call in (
            callers.ListCalls(pb.ListCallsRequest(account=name), metadata=metadata),
            callers.AggregateCalls(pb.AggregateCallsRequest(account=name), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            refusals.add((refused.value.code(), refused.value.details()))
    assert len(refusals) == 1


async def test_ids_of_another_account_lead_nowhere(tenants: Tenants) -> None:
    """A call, an answer and a request of another account are like unknown ones."""
    callers, metadata = tenants.log.callers, tenants.metadata("acme")
    other, own = tenants.calls["other"], tenants.calls["acme"]
    assert (
        await callers.GetCall(pb.GetCallRequest(call_id=own.call_id), metadata=metadata)
    ).call.account == "acme"

    details = set()
    for call_id in (other.call_id, "call-0", f"call-{'0' * 31}"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callers.GetCall(pb.GetCallRequest(call_id=call_id), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        details.add(refused.value.details())
    for answer in (other.completion_id, other.request_id, "chatcmpl-0"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callers.GetGeneration(pb.GetGenerationRequest(id=answer), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        details.add(refused.value.details())
    assert len(details) == 1


async def test_a_stolen_page_token_is_refused(tenants: Tenants) -> None:
    """A token is bound to its account, and to what the list selects."""
    callers, stand = tenants.log.callers, tenants.log.stand
    await stand.ask(tenants.secrets["other"])
    page = await callers.ListCalls(
        pb.ListCallsRequest(page_size=1), metadata=tenants.metadata("other")
    )
    assert page.next_page_token
    stolen = pb.ListCallsRequest(page_size=1, page_token=page.next_page_token)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await callers.ListCalls(stolen, metadata=tenants.metadata("acme"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    stolen.model = "house/model"
    with pytest.raises(grpc.aio.AioRpcError):
        await callers.ListCalls(stolen, metadata=tenants.metadata("other"))
    with pytest.raises(grpc.aio.AioRpcError):
        await tenants.log.operators.ListCalls(stolen)


async def test_channels_and_costs_are_for_operators(tenants: Tenants) -> None:
    """Tenants do not see them, select by them or group by them."""
    callers, metadata = tenants.log.callers, tenants.metadata("acme")
    own = tenants.calls["acme"]
    assert own.channel == "house"
    assert own.provider_cost_nano_usd > 0

    got = (await callers.GetCall(pb.GetCallRequest(call_id=own.call_id), metadata=metadata)).call
    assert (got.channel, got.hold_id, got.provider_cost_nano_usd) == ("", "", 0)
    assert [(each.channel, each.upstream_model) for each in got.attempts] == [("", "")]
    summed = await callers.AggregateCalls(pb.AggregateCallsRequest(), metadata=metadata)
    assert [group.provider_cost_nano_usd for group in summed.groups] == [0]
    _, text = await tenants.log.text(tenants.secrets["acme"])
    assert {"channel", "provider_cost_nano_usd", "hold_id"}.isdisjoint(rows_of(text)[0])

    by_channel = pb.AggregateCallsRequest(group_by=[pb.CALL_DIMENSION_CHANNEL])
    for call in (
        callers.ListCalls(pb.ListCallsRequest(channel="house"), metadata=metadata),
        callers.AggregateCalls(pb.AggregateCallsRequest(channel="house"), metadata=metadata),
        callers.AggregateCalls(by_channel, metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


METHODS = (
    "ListCalls", "GetCall", "AggregateCalls", "GetGeneration", "ExportCalls", "ExportCallSums",
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_needs_a_key(tenants: Tenants, method: str) -> None:
    """Without a key, and with one that was guessed, nothing is told."""
    secret = tenants.secrets["acme"]
    for metadata in ((), (("authorization", f"Bearer {secret[:-8]}{secret[-8:].swapcase()}"),)):
        call = getattr(tenants.log.callers, method)(
            getattr(pb, f"{method}Request")(), metadata=metadata
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (call.read() if method.startswith("Export") else call)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
