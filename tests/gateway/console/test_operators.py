"""Operators' pages over a real service."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1.key_service_pb2 import KeyScope

from tests.stand.billing_stand import MODEL, NANO, piece
from tests.stand.console_stand import TOKEN, ConsoleStand, browser, console_stand
from tests.stand.upstream import SSE_HEAD, json_answer, sse

PAGES = (
    "/console/accounts",
    "/console/channels",
    "/console/limits",
    "/console/load",
    "/console/live-calls",
    "/console/explain",
    "/console/configuration",
    "/console/ledger",
)
SECRET = re.compile(r"sk-pg-\w{49}")
ONCE_ID = re.compile(r'name="once_id" value="(\w+)"')
KEY_ID = re.compile(r"key-[0-9a-f]+")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    """A console that an operator has signed in to."""
    async with console_stand(tmp_path) as stand:
        assert (await stand.browser.sign_in(TOKEN)).status == 303
        await stand.browser.get("/console/accounts")
        yield stand


async def page_of(stand: ConsoleStand, path: str) -> str:
    """The text of a page."""
    answer = await stand.browser.get(path)
    assert answer.status == 200, answer
    return answer.text


async def test_a_token_opens_the_pages_of_operators(stand: ConsoleStand) -> None:
    """The first page is that of accounts. Pages of tenants lead to the sign-in."""
    home = await stand.browser.get("/console")
    assert (home.status, home.headers["Location"]) == (303, "/console/accounts")
    for path in PAGES:
        assert TOKEN not in await page_of(stand, path)
    assert (await stand.browser.get("/console/playground")).status == 303


async def test_tenants_have_no_page_of_operators(stand: ConsoleStand) -> None:
    """They can neither see one nor send its forms."""
    key = await stand.billing.open_account("acme", NANO)
    async with browser(stand.url) as tenant:
        await tenant.sign_in(key)
        for path in (*PAGES, "/console/accounts/acme"):
            answer = await tenant.get(path)
            assert (answer.status, answer.headers["Location"]) == (303, "/console/sign-in")
        fields = {"action": "credit", "amount_usd": "5", "once_id": "a"}
        await tenant.post("/console/accounts/acme", fields)
        await tenant.post("/console/accounts/acme/keys", {"action": "create", "once_id": "b"})

    assert await stand.billing.balance(key) == NANO


async def test_an_account_is_opened_credited_and_marked_up(stand: ConsoleStand) -> None:
    """A credit that is sent twice counts once."""
    fields = {"account": "acme", "credit_usd": "1.5"}
    opened = await stand.browser.post("/console/accounts", fields)
    assert opened.headers["Location"] == "/console/accounts/acme"
    text = await page_of(stand, "/console/accounts/acme")
    (once_id, *_) = ONCE_ID.findall(text)

    for _ in range(2):
        fields = {"action": "credit", "amount_usd": "0,25", "once_id": once_id}
        await stand.browser.post("/console/accounts/acme", fields)
    fields = {"action": "markup", "markup_percent": "12.5"}
    await stand.browser.post("/console/accounts/acme", fields)

    assert "$1.75" in await page_of(stand, "/console/accounts/acme")
    assert "12.50 %" in await page_of(stand, "/console/accounts/acme")
    assert "/console/accounts/acme" in await page_of(stand, "/console/accounts")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/console/accounts", {"account": "a b"}),
        ("/console/accounts", {"account": "acme", "credit_usd": "much"}),
        ("/console/accounts/acme", {"action": "credit", "amount_usd": "0", "once_id": "a"}),
        ("/console/accounts/acme", {"action": "credit", "amount_usd": "1e99", "once_id": "a"}),
        ("/console/accounts/acme", {"action": "markup", "markup_percent": "-1"}),
        ("/console/accounts/acme", {"action": "burn"}),
        ("/console/accounts/acme/keys", {"action": "create", "requests_per_minute": "many"}),
        ("/console/accounts/acme/keys", {"action": "create", "expires": "2027-02-30"}),
        ("/console/accounts/acme/keys", {"action": "create", "expires": "2001-01-01"}),
        ("/console/accounts/acme/keys", {"action": "create", "monthly_usd": "NaN"}),
        ("/console/accounts/acme/keys", {}),
    ],
)
async def test_a_wrong_field_is_refused(
    stand: ConsoleStand, path: str, fields: dict[str, str]
) -> None:
    """The page names the field."""
    await stand.billing.open_account("acme", NANO)

    answer = await stand.browser.post(path, fields)

    assert answer.status == 400
    assert "invalid_value" in answer.text


async def test_a_secret_is_shown_once(stand: ConsoleStand) -> None:
    """Only the page that made it shows it. The same form again makes no second key."""
    await stand.billing.open_account("acme", NANO)
    text = await page_of(stand, "/console/accounts/acme")
    (once_id, *_) = ONCE_ID.findall(text)
    path, fields = "/console/accounts/acme/keys", {
        "action": "create",
        "once_id": once_id,
        "display_name": "bot",
        "models": f"{MODEL}, other/model",
        "requests_per_minute": "60",
        "monthly_usd": "9.50",
        "expires": "2100-01-01",
    }  # fmt: skip

    made = await stand.browser.post(path, fields)
    again = await stand.browser.post(path, fields)

    (secret,) = SECRET.findall(made.text)
    assert not SECRET.findall(again.text)
    assert "sent twice" in again.text
    later = await page_of(stand, "/console/accounts/acme")
    assert secret not in later
    assert later.count(">bot<") == 1
    for limit in (f"{MODEL}, other/model", "60 requests", "$9.50 a month", "2100-01-01"):
        assert limit in later
    assert (await stand.billing.ask(secret)).status == 200


async def test_a_key_is_rotated_and_revoked(stand: ConsoleStand) -> None:
    """Its page shows the new secret once, and then that it is revoked."""
    await stand.billing.open_account("acme", NANO)
    made = await stand.billing.make_key("acme")
    path, key_id = "/console/accounts/acme/keys", made.key.key_id

    fields = {"action": "rotate", "key_id": key_id, "overlap_hours": "1"}
    rotated = await stand.browser.post(path, fields)
    (secret,) = SECRET.findall(rotated.text)
    assert [(await stand.billing.ask(key)).status for key in (secret, made.secret)] == [200, 200]

    revoked = await stand.browser.post(path, {"action": "revoke", "key_id": key_id})
    assert revoked.status == 303
    assert "revoked 20" in await page_of(stand, "/console/accounts/acme")


async def test_terms_of_a_key_are_changed(stand: ConsoleStand) -> None:
    """An emptied field is cleared. An expiry time whose day stays keeps its time of day."""
    await stand.billing.open_account("acme", NANO)
    expires = Timestamp(seconds=4_102_444_800 + 3600)
    made = await stand.billing.make_key(
        "acme", strict=True, requests_per_minute=5, expire_time=expires
    )
    path = "/console/accounts/acme"
    assert 'value="2100-01-01"' in await page_of(stand, path)
    form = {"action": "change", "key_id": made.key.key_id}

    changed = {
        **form,
        "display_name": "bot",
        "tokens_per_minute": "900",
        "expires": "2100-01-01",
        "expires_before": "2100-01-01",
    }
    assert (await stand.browser.post(f"{path}/keys", changed)).status == 303

    (key,) = await stand.keys_of("acme", made.key.key_id)
    assert key.display_name == "bot"
    assert key.scope == KeyScope(strict=True, tokens_per_minute=900, expire_time=expires)
    cleared = {**form, "expires": "", "expires_before": "2100-01-01"}
    await stand.browser.post(f"{path}/keys", cleared)
    (key,) = await stand.keys_of("acme", made.key.key_id)
    assert key.scope == KeyScope(strict=True)


async def test_channels_are_listed(stand: ConsoleStand) -> None:
    """The table has each model and channel with the state of its circuit breaker."""
    text = await page_of(stand, "/console/channels")
    assert MODEL in text
    assert ">closed</span>" in text


async def test_a_channel_is_disabled_and_enabled(stand: ConsoleStand) -> None:
    """Calls fail meanwhile, since there is no other channel. A reason is required."""
    key = await stand.billing.open_account("acme", NANO)
    await stand.browser.get("/console/channels")
    assert (
        await stand.browser.post("/console/channels", {"action": "disable", "channel": "house"})
    ).status == 400

    fields = {"channel": "house", "reason": "<i>broken</i>", "hours": "2"}
    await stand.browser.post("/console/channels", {"action": "disable", **fields})

    text = await page_of(stand, "/console/channels")
    assert "disabled</span> &lt;i&gt;broken&lt;/i&gt;" in text
    assert (await stand.billing.ask(key)).status >= 400
    await stand.browser.post("/console/channels", {"action": "enable", "channel": "house"})
    assert "disabled</span>" not in await page_of(stand, "/console/channels")
    assert (await stand.billing.ask(key)).status == 200
    unknown = {"action": "enable", "channel": "no-such"}
    assert (await stand.browser.post("/console/channels", unknown)).status in {303, 404}


async def test_a_channel_is_tested(stand: ConsoleStand) -> None:
    """The page shows the answer's figures or the provider's error. No account pays."""
    key = await stand.billing.open_account("acme", NANO)
    await stand.browser.get("/console/channels")
    fields = {"channel": "house", "model": MODEL, "key_number": "0"}
    passed = await stand.browser.post("/console/channels/test", fields)
    assert "has answered" in passed.text
    assert "<dt>Provider&#39;s cost</dt>" in passed.text
    assert len(stand.billing.upstream.requests) == 1

    stand.billing.script = [json_answer({"error": {"message": "<i>no</i> credit"}}, 402)]
    await stand.browser.post(
        "/console/channels", {"action": "disable", "channel": "house", "reason": "a"}
    )
    failed = await stand.browser.post("/console/channels/test", fields)
    assert "The test failed" in failed.text
    assert "HTTP 402" in failed.text
    assert "&lt;i&gt;no&lt;/i&gt; credit" in failed.text
    for wrong in ({"channel": "no-such"}, {"key_number": "7"}, {"key_number": "9" * 12}):
        answer = await stand.browser.post("/console/channels/test", {**fields, **wrong})
        assert answer.status in {400, 404}
    assert await stand.billing.balance(key) == NANO


async def test_a_call_in_flight_is_seen_and_aborted(stand: ConsoleStand) -> None:
    """Its stream ends with an error. An ID of no call is refused."""
    key = await stand.billing.open_account("acme", NANO)
    never = asyncio.Event()
    stand.billing.script = [SSE_HEAD, sse(piece("Hi")), never]
    call = asyncio.ensure_future(stand.billing.ask(key, "sse"))
    async with asyncio.timeout(30):
        text = ""
        while ">answering<" not in text:
            text = await page_of(stand, "/console/live-calls")
    assert "acme" in text
    assert "acme" not in await page_of(stand, "/console/live-calls?model=other")
    (call_id,) = re.findall(r'name="call_id" value="([^"]+)"', text)

    form = {"action": "abort", "call_id": call_id}
    assert (await stand.browser.post("/console/live-calls", form)).status == 400
    done = await stand.browser.post("/console/live-calls", {**form, "reason": "too long"})
    assert done.headers["Location"] == "/console/live-calls?aborted"

    assert "aborted" in (await call).body.decode()
    again = await stand.browser.post("/console/live-calls", {**form, "reason": "too long"})
    assert again.status == 404
    assert "too long" in await page_of(stand, "/console/audit")


async def test_a_request_is_explained(stand: ConsoleStand) -> None:
    """The page shows the body that the channel would get. Nothing is sent."""
    await stand.browser.get("/console/explain")
    asked = {"model": MODEL, "text": "<b>How</b>?"}
    answer = await stand.browser.post("/console/explain", asked)

    assert answer.status == 200
    assert "1. house" in answer.text
    assert "&lt;b&gt;How&lt;/b&gt;?" in answer.text
    assert "<b>How" not in answer.text
    assert not stand.billing.upstream.requests
    unknown = await stand.browser.post("/console/explain", {"model": "no/model", "text": "a"})
    assert unknown.status == 400


async def test_the_ledger_is_verified(stand: ConsoleStand) -> None:
    """The page has the counts of the verification."""
    await stand.billing.open_account("acme", NANO)
    await stand.browser.get("/console/ledger")
    answer = await stand.browser.post("/console/ledger", {})

    assert "The ledger is consistent." in answer.text
    assert "<dt>Transfers</dt>" in answer.text
    assert "<dt>Calls compared with their holds</dt>" in answer.text


async def test_actions_are_logged(stand: ConsoleStand, caplog: pytest.LogCaptureFixture) -> None:
    """The line has the ID of the request, which the service logs, too, and no field of the form."""
    await stand.billing.open_account("acme", NANO)
    with caplog.at_level(logging.INFO):
        fields = {"action": "credit", "amount_usd": "7", "once_id": "invoice-7"}
        answer = await stand.browser.post("/console/accounts/acme", fields)

    lines = [vars(record) for record in caplog.records if record.message == "console.action"]
    assert len(lines) == 1
    assert lines[0]["request_id"] == answer.headers["x-request-id"]
    assert (lines[0]["role"], lines[0]["action"]) == ("operator", "credit")
    assert "invoice-7" not in caplog.text


async def test_a_wrong_token_is_refused(tmp_path: Path) -> None:
    """Where operators cannot sign in, every token is refused."""
    async with console_stand(tmp_path) as stand:
        for token in (TOKEN[:-1], TOKEN + "x", ""):
            assert (await stand.browser.sign_in(token)).status == 401
        async with browser(stand.billing.gateway.url) as public:
            assert (await public.get("/console/accounts")).status == 404
