"""The call log of a whole gateway: a row for each call, equal to the ledger to the nano-dollar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pomogator.calls.v1 import call_service_pb2 as pb

from services.config import LimitConfig
from tests.stand.billing_stand import COST_NANO, FORMS, MODEL, NANO, billing_stand, piece
from tests.stand.call_log import CallLogStand, answer_id, call_log_stand, rows_of
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.upstream import CUT, SSE_HEAD, sse

ONE_AT_ONCE = LimitConfig(key="*", rpm=1)


@pytest.fixture
async def log(tmp_path: Path, each_database_url: str) -> AsyncIterator[CallLogStand]:
    """The log of a gateway, in each database."""
    async with (
        billing_stand(tmp_path, database_url=each_database_url) as stand,
        call_log_stand(stand) as opened,
    ):
        yield opened


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_a_call_has_a_row(tmp_path: Path, transport: Transport, form: str) -> None:
    """The row has the facts of the call, as its caller and the ledger have them."""
    async with billing_stand(tmp_path, transport=transport) as stand, call_log_stand(stand) as log:
        key = await stand.open()
        answer = await stand.ask(key, form, user="u-7", top_k=3)

        (call,) = await log.all_calls()

        assert (call.account, call.model, call.served_model) == ("acme", MODEL, MODEL)
        assert (call.channel, call.attempt_count, call.end) == ("house", 1, "stop")
        assert (call.surface, call.streamed, call.http_status) == ("chat", form == "sse", 200)
        assert (call.prompt_token_count, call.completion_token_count) == (11, 5)
        assert (call.cache_read_token_count, call.usage_source) == (4, "provider")
        assert (call.charge_nano_usd, call.provider_cost_nano_usd) == (COST_NANO, COST_NANO)
        assert call.hold_nano_usd >= COST_NANO
        assert (call.end_user, call.reason) == ("u-7", "")
        assert call.first_token_duration.ToMilliseconds() <= call.total_duration.ToMilliseconds()
        assert answer.status == 200
        assert call.completion_id == answer_id(answer)
        assert call.request_id == answer.headers["x-request-id"]


async def test_refused_calls_have_rows(log: CallLogStand) -> None:
    """They lack money, or have an unknown model or a wrong value. Unknown keys have no rows."""
    key = await log.stand.open(credit_nano=0)
    await log.stand.ask(key)
    await log.stand.ask(key, model="house/unknown")
    await log.stand.ask(key, temperature=9)
    await log.stand.ask(f"{key[:-8]}{key[-8:].swapcase()}")

    found = [(call.reason, call.http_status, call.end) for call in await log.all_calls()]

    assert sorted(found) == [
        ("INSUFFICIENT_QUOTA", 402, "refused"),
        ("INVALID_FIELD", 400, "refused"),
        ("MODEL_NOT_FOUND", 400, "refused"),
    ]
    assert all(not call.hold_id and not call.charge_nano_usd for call in await log.all_calls())


async def test_a_broken_answer_has_its_reason_and_charge(log: CallLogStand) -> None:
    """An answer that breaks off is charged, and its row says so."""
    key = await log.stand.open()
    log.stand.script = [SSE_HEAD, sse(piece("Hel")), CUT]
    await log.stand.ask(key, "sse")
    charged = NANO - await log.stand.balance(key)

    (call,) = await log.all_calls()

    assert (call.end, call.reason) == ("upstream_eof", "UPSTREAM_DISCONNECTED")
    assert call.charge_nano_usd == charged > 0
    got = (await log.operators.GetCall(pb.GetCallRequest(call_id=call.call_id))).call
    assert [attempt.reason for attempt in got.attempts] == ["UPSTREAM_DISCONNECTED"]
    assert got.attempts[0].channel == "house"


async def test_an_answer_that_used_up_the_balance_ends_without_funds(log: CallLogStand) -> None:
    """It is neither a fault of the provider nor one of the gateway: no alert counts it."""
    key = await log.stand.open(credit_nano=2_000_000)
    log.stand.script = [SSE_HEAD, *(sse(piece("five " * 80)) for _ in range(400)), CUT]
    assert (await log.stand.ask(key, "sse")).code == "insufficient_quota"

    (call,) = await log.all_calls()

    assert (call.end, call.reason) == ("no_funds", "INSUFFICIENT_QUOTA")


async def test_the_rows_add_up_to_the_ledger(log: CallLogStand) -> None:
    """The sums of rows, of an export and of the days are the account's charges."""
    key = await log.stand.open()
    for form in FORMS * 4:
        await log.stand.ask(key, form)
    await log.stand.ask(key, model="house/unknown")
    charged = NANO - await log.stand.balance(key)
    assert charged == 8 * COST_NANO

    _, text = await log.text(key)
    exported = rows_of(text)
    _, listed = await log.get(key, "/calls")
    _, summed = await log.get(key, "/calls:aggregate", interval="CALL_INTERVAL_DAY")

    assert len(exported) == 9
    assert sum(int(row["charge_nano_usd"]) for row in exported) == charged
    assert sum(int(call["charge_nano_usd"]) for call in listed["calls"]) == charged
    assert sum(int(group["charge_nano_usd"]) for group in summed["groups"]) == charged
    assert sum(int(group["call_count"]) for group in summed["groups"]) == 9
    counts = await log.stand.counts()
    assert (counts["calls"], counts["holds_without_call"]) == (8, 0)


async def test_pages_hold_each_call_once(log: CallLogStand) -> None:
    """The pages of a list have all calls, newest first, and none twice."""
    key = await log.stand.open()
    for _ in range(7):
        await log.stand.ask(key)

    found, token = [], ""
    while True:
        _, page = await log.get(key, "/calls", page_size="3", page_token=token)
        found += [call["call_id"] for call in page["calls"]]
        if not (token := page["next_page_token"]):
            break

    assert len(found) == 7
    assert found == sorted(set(found), reverse=True)


async def test_ids_begin_with_their_time(log: CallLogStand) -> None:
    """Indexes of requests and answers grow at their ends alone."""
    key = await log.stand.open()
    for form in FORMS * 3:
        await log.stand.ask(key, form)
        await asyncio.sleep(0.002)  # Calls of one millisecond have no order.

    calls = await log.all_calls()

    for name in ("request_id", "completion_id"):
        times_ms = [int(getattr(call, name).partition("-")[2][:12], 16) for call in calls]
        assert times_ms == sorted(times_ms, reverse=True)
        assert abs(times_ms[0] - calls[0].create_time.ToMilliseconds()) < 60_000


async def test_lines_of_json_are_typed(log: CallLogStand) -> None:
    """An export as JSON lines has the types of the columns."""
    key = await log.stand.open()
    await log.stand.ask(key)

    mime_type, text = await log.text(key, format="EXPORT_FORMAT_NDJSON")

    assert mime_type == "application/x-ndjson"
    row = json.loads(text)
    assert (row["charge_nano_usd"], row["streamed"], row["tags"]) == (COST_NANO, False, {})
    assert "channel" not in row


async def test_labels_of_a_call(log: CallLogStand) -> None:
    """Tags and session come from headers; tags of another form are refused."""
    key = await log.stand.open()
    url = f"{log.stand.gateway.base_url}/chat/completions"
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    labels = {"x-pomogator-tags": "team=search, stage=test", "x-session-id": "s-1"}
    headers = {"Authorization": f"Bearer {key}"}
    async with log.stand.gateway.http.post(url, json=body, headers={**headers, **labels}) as answer:
        assert answer.status == 200
    wrong = {**headers, "x-pomogator-tags": "team"}
    async with log.stand.gateway.http.post(url, json=body, headers=wrong) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "x-pomogator-tags")

    (call,) = await log.all_calls(session_id="s-1")

    assert dict(call.tags) == {"team": "search", "stage": "test"}
    assert await log.all_calls(session_id="s-2") == []


async def ask_labelled(log: CallLogStand, key: str, user: str, tags: str) -> None:
    """Make a call of an end user with tags."""
    url = f"{log.stand.gateway.base_url}/chat/completions"
    messages = [{"role": "user", "content": "Hi"}]
    headers = {"Authorization": f"Bearer {key}", **({"x-pomogator-tags": tags} if tags else {})}
    body = {"model": MODEL, "messages": messages, **({"user": user} if user else {})}
    async with log.stand.gateway.http.post(url, json=body, headers=headers) as answer:
        assert answer.status == 200


def figures(groups: Sequence[Mapping[str, Any]], *names: str) -> Mapping[tuple[str, ...], int]:
    """Return the charges of groups by their names."""
    return {
        tuple(group.get(name, "") for name in names): int(group["charge_nano_usd"])
        for group in groups
    }


async def test_end_users_and_tags_are_summed_up(log: CallLogStand) -> None:
    """Their charges are the sums of their calls, over REST and in an export of the sums."""
    key = await log.stand.open()
    await ask_labelled(log, key, "ann", "team=a,stage=x")
    await ask_labelled(log, key, "ann", "team=b")
    await ask_labelled(log, key, "=bob", "team=b")
    await ask_labelled(log, key, "", "")

    _, users = await log.get(key, "/calls:aggregate", group_by="CALL_DIMENSION_END_USER")
    _, tags = await log.get(key, "/calls:aggregate", group_by="CALL_DIMENSION_TAG")
    _, team = await log.get(
        key, "/calls:aggregate", interval="CALL_INTERVAL_DAY", tag_name="team", tag_value="b"
    )
    mime_type, text = await log.text(
        key, method="exportSums", group_by="CALL_DIMENSION_END_USER", interval="CALL_INTERVAL_HOUR"
    )

    assert figures(users["groups"], "end_user") == {("ann",): 2 * COST_NANO, ("=bob",): COST_NANO}
    assert figures(tags["groups"], "tag_name", "tag_value") == {
        ("stage", "x"): COST_NANO, ("team", "a"): COST_NANO, ("team", "b"): 2 * COST_NANO,
    }  # fmt: skip
    assert figures(team["groups"]) == {(): 2 * COST_NANO}
    assert (mime_type, text[:13]) == ("text/csv", "start_time_ms")
    rows = rows_of(text)
    assert figures(rows, "end_user") == {("ann",): 2 * COST_NANO, ("'=bob",): COST_NANO}
    assert {"channel", "provider_cost_nano_usd"}.isdisjoint(rows[0])
    _, lines = await log.text(key, method="exportSums", format="EXPORT_FORMAT_NDJSON")
    assert json.loads(lines)["charge_nano_usd"] == 4 * COST_NANO


@pytest.mark.parametrize(
    "query",
    [
        {"end_user": "ann", "model": MODEL},
        {"end_user": "ann", "tag_name": "team"},
        {"group_by": "CALL_DIMENSION_END_USER", "tag_name": "team"},
        {"tag_name": "team", "group_by": "CALL_DIMENSION_MODEL"},
        {"tag_value": "a"},
        {"end_user": "ann", "metrics": "CALL_METRIC_DURATIONS"},
    ],
    ids=str,
)
async def test_labels_are_not_combined_with_other_groups(
    tmp_path: Path, query: dict[str, str]
) -> None:
    """Such sums are not kept, so the request is refused."""
    async with billing_stand(tmp_path) as stand, call_log_stand(stand) as log:
        status, answer = await log.get(await stand.open(), "/calls:aggregate", **query)
        assert (status, answer["error"]["code"]) == (400, "invalid_value")


async def test_labels_in_several_headers_are_one_list(log: CallLogStand) -> None:
    """RFC 9110, section 5.3. A name that comes twice is refused, in any of them."""
    key = await log.stand.open()
    url = f"{log.stand.gateway.base_url}/chat/completions"
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    statuses = []
    for second in ("stage=test", "team=other"):
        labels = [("x-pomogator-tags", "team=search"), ("x-pomogator-tags", second)]
        headers = [("Authorization", f"Bearer {key}"), *labels]
        async with log.stand.gateway.http.post(url, json=body, headers=headers) as answer:
            statuses.append(answer.status)

    assert statuses == [200, 400]
    assert [dict(call.tags) for call in await log.all_calls()][-1] == {
        "team": "search",
        "stage": "test",
    }


async def test_a_generation_has_the_form_of_openrouter(log: CallLogStand) -> None:
    """An answer's ID leads to its call, with the cost in US dollars."""
    key = await log.stand.open()
    answer = await log.stand.ask(key)

    status, found = await log.get(key, "/generation", id=answer_id(answer))

    assert status == 200
    data = found["data"]
    assert (data["id"], data["model"], data["finish_reason"]) == (answer_id(answer), MODEL, "stop")
    assert data["total_cost"] == data["usage"] == COST_NANO / NANO
    assert (data["tokens_prompt"], data["native_tokens_cached"]) == (11, 4)
    status, _ = await log.get(key, "/generation", id="chatcmpl-0")
    assert status == 404


async def test_a_log_that_is_off_says_so(tmp_path: Path) -> None:
    """Without a log its methods are not implemented, and calls go on."""
    async with billing_stand(tmp_path, call_log=False) as stand, call_log_stand(stand) as log:
        key = await stand.open()
        assert (await stand.ask(key)).status == 200

        status, answer = await log.get(key, "/calls")

        assert (status, answer["error"]["code"]) == (501, "not_implemented")
        assert not (tmp_path / "calls").exists()
