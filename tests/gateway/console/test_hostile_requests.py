"""Requests that no page of the console sends: each gets a clear refusal, and none is a fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from yarl import URL

from tests.stand.billing_stand import NANO
from tests.stand.console_stand import TOKEN, ConsoleStand, console_stand

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    """A console that an operator has signed in to, with an account."""
    async with console_stand(tmp_path) as stand:
        await stand.billing.open_account("acme", NANO)
        assert (await stand.browser.sign_in(TOKEN)).status == 303
        await stand.browser.get("/console/accounts")
        yield stand


ACCOUNT, KEYS, CHANNELS = (
    "/console/accounts/acme",
    "/console/accounts/acme/keys",
    "/console/channels",
)
HOUSE = {"channel": "house", "reason": "test", "action": "disable"}
FORMS: tuple[tuple[str, Mapping[str, str]], ...] = (
    (ACCOUNT, {"action": "credit", "amount_usd": "1e999999"}),
    (ACCOUNT, {"action": "credit", "amount_usd": "1e-999999"}),
    (ACCOUNT, {"action": "credit", "amount_usd": "."}),
    (ACCOUNT, {"action": "markup", "markup_percent": "1e99"}),
    (ACCOUNT, {"action": "markup", "markup_percent": "1e999999"}),
    (KEYS, {"action": "create", "monthly_usd": "-1e999999"}),
    (KEYS, {"action": "create", "expires": "0001-01-01"}),
    (KEYS, {"action": "create", "display_name": "a\0b"}),
    (KEYS, {"action": "create", "once_id": "a\0b"}),
    (KEYS, {"action": "rotate", "key_id": "key-0", "overlap_hours": "999999999999"}),
    (CHANNELS, {**HOUSE, "hours": "999999999999"}),
    (CHANNELS, {**HOUSE, "hours": "0"}),
    (CHANNELS, {**HOUSE, "reason": "a\0b"}),
)


@pytest.mark.parametrize(("path", "fields"), FORMS, ids=str)
async def test_a_field_beyond_all_bounds_is_refused(
    stand: ConsoleStand, path: str, fields: Mapping[str, str]
) -> None:
    """The page of the failure names the field."""
    answer = await stand.browser.post(path, {"once_id": "a", **fields})

    assert answer.status == 400
    assert "invalid_value" in answer.text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("calls?until=9999-12-31", 400),
        ("calls/export?until=9999-12-31", 400),
        ("calls?since=9999-12-31&until=0001-01-01", 400),
        ("calls?min_charge_usd=1e999999", 400),
        ("calls?min_charge_usd=-5", 400),
        ("calls?model=%00", 400),
        ("calls/export?model=%00", 400),
        ("calls?after=%ED%A0%80", 400),
        ("calls?model=%FF", 200),
        ("calls/call-fffffffffff00000000000000000000", 404),
        ("calls/%ED%A0%80", 404),
        ("accounts/%00", 400),
        ("accounts/acme?after=zzz", 400),
        ("audit?account=%00", 400),
        ("usage?days=%D9%A7", 303),
        ("static/..%2fconsole.py", 404),
        ("static/%2e%2e/console.py", 404),
    ],
)
async def test_a_query_beyond_all_bounds_is_refused(
    stand: ConsoleStand, query: str, status: int
) -> None:
    """No link of the console has such dates, names, tokens and paths."""
    url = URL(f"{stand.url}/console/{query}", encoded=True)
    async with stand.browser.http.get(url, allow_redirects=False) as answer:
        assert answer.status == status, await answer.text()


@pytest.mark.parametrize(
    ("media_type", "body", "status"),
    [
        (FORM, b"csrf=\xff", 400),
        (FORM, b"csrf=%ED%A0%80", 403),
        (FORM, b"a=1&" * 16_000, 400),
        (f"{FORM}; charset=klingon", b"csrf=a", 403),
        (f"{FORM}; charset=base64", b"csrf=a", 403),
        (FORM, b"a" * 2**17, 413),
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=a", b"--a--", 415),
    ],
)
async def test_a_body_that_is_no_form_is_refused(
    stand: ConsoleStand, media_type: str, body: bytes, status: int
) -> None:
    """It is refused before anything is done, also without a sign-in."""
    url, headers = f"{stand.url}/console/sign-in", {"Content-Type": media_type}
    async with stand.browser.http.post(url, data=body, headers=headers) as answer:
        assert answer.status == status, await answer.text()


@pytest.mark.parametrize("origin", ["http://[", "null", "", "http://evil.example", "127.0.0.1"])
async def test_a_form_of_another_origin_is_refused(stand: ConsoleStand, origin: str) -> None:
    """A header that is no URL is refused, too."""
    answer = await stand.browser.post("/console/sign-out", {}, {"Origin": origin})

    assert answer.status == 403


async def test_cookies_of_others_reach_no_page(stand: ConsoleStand) -> None:
    """Unknown languages and themes are ignored; a cookie that we have not sealed is no session."""
    port = stand.url.rpartition(":")[2]
    cookies = f'pomogator-{port}=aaaa; console-language="><script>; console-theme="><script>'
    async with stand.browser.http.get(
        f"{stand.url}/console/sign-in", headers={"Cookie": cookies}
    ) as answer:
        text = await answer.text()

    assert answer.status == 200
    assert "><script>" not in text
