"""Pages of the call log, over a real service, for tenants and operators."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.console.figures import FIGURES
from tests.stand.billing_stand import COST_NANO, MODEL, NANO
from tests.stand.console_stand import TOKEN, Browser, ConsoleStand, browser, console_stand

CALL_LINK = re.compile(r'href="(/console/calls/call-[^"]+)"')
CALLS = "/console/calls"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    """A console."""
    async with console_stand(tmp_path) as stand:
        yield stand


async def listed(client: Browser, calls: int, query: str = "") -> list[str]:
    """The paths of the calls on the page, once there are that many."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.get(f"{CALLS}{query}")
            assert answer.status == 200, answer.text
            found = CALL_LINK.findall(answer.text)
            if len(found) >= calls:
                assert len(found) == calls
                return found
            await asyncio.sleep(0.05)  # Rows are written a moment after the end of a call.


async def test_a_call_is_found_with_its_charge(stand: ConsoleStand) -> None:
    """Its page has the model, the charge and the end of the call, and no text of it."""
    key = await stand.billing.open_account("acme", NANO)
    headers_of_one = await stand.billing.ask(key)
    assert headers_of_one.status == 200
    await stand.browser.sign_in(key)

    (path,) = await listed(stand.browser, 1)
    page = (await stand.browser.get(path)).text

    assert MODEL in page
    assert f"${COST_NANO / NANO:.9f}".rstrip("0") in page
    for text in ("Hello", "Hi!", "house"):
        assert text not in page.replace(MODEL, "")
    usage = (await stand.browser.get("/console/usage")).text
    assert "By key" in usage


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        (f"?model={MODEL}", 2),
        ("?model=no/model", 0),
        ("?outcome=stop", 2),
        ("?request_id=no-such", 0),
        ("?since=2001-01-01&until=2100-01-01", 2),
        ("?since=2100-01-01", 0),
        ("?min_charge_usd=0.5", 0),
        ("?min_charge_usd=0.001", 2),
    ],
)
async def test_filters_select_calls(stand: ConsoleStand, query: str, calls: int) -> None:
    """The form keeps the values of the filter."""
    key = await stand.billing.open_account("acme", NANO)
    for _ in range(2):
        await stand.billing.ask(key)
    await stand.browser.sign_in(key)
    await listed(stand.browser, 2)

    assert len(await listed(stand.browser, calls, query)) == calls
    (_, _, value) = query.partition("=")
    assert f'value="{value.partition("&")[0]}"' in (await stand.browser.get(CALLS + query)).text


@pytest.mark.parametrize("query", ["?since=yesterday", "?min_charge_usd=much", "?after=x"])
async def test_a_wrong_filter_is_refused(stand: ConsoleStand, query: str) -> None:
    """The status is 400. A page of other calls would mislead."""
    await stand.browser.sign_in(await stand.billing.open_account("acme", NANO))

    assert (await stand.browser.get(CALLS + query)).status == 400


async def test_an_export_has_the_calls_of_the_filter(stand: ConsoleStand) -> None:
    """The export is a file to be saved, as CSV or as lines of JSON."""
    key = await stand.billing.open_account("acme", NANO)
    for _ in range(3):
        await stand.billing.ask(key)
    await stand.browser.sign_in(key)
    await listed(stand.browser, 3)

    table = await stand.browser.get(f"{CALLS}/export?format=csv")
    lines = await stand.browser.get(f"{CALLS}/export?format=ndjson&model={MODEL}")

    assert table.headers["Content-Disposition"] == 'attachment; filename="calls.csv"'
    rows = list(csv.DictReader(table.text.splitlines()))
    assert len(rows) == 3
    assert sum(int(row["charge_nano_usd"]) for row in rows) == 3 * COST_NANO
    assert len([json.loads(line) for line in lines.text.splitlines()]) == 3
    wrong = await stand.browser.get(f"{CALLS}/export?since=x")
    assert wrong.status == 400


async def test_tenants_see_their_own_calls_only(stand: ConsoleStand) -> None:
    """They see no list, page or export of other accounts. Operators see all, with channels."""
    ours = await stand.billing.open_account("acme", NANO)
    theirs = await stand.billing.open_account("globex", NANO)
    await stand.billing.ask(ours)
    await stand.browser.sign_in(ours)
    (path,) = await listed(stand.browser, 1)

    async with browser(stand.url) as other, browser(stand.url) as operator:
        await other.sign_in(theirs)
        for query in ("", "?account=acme", "?channel=house", f"?model={MODEL}"):
            assert await listed(other, 0, query) == []
        assert (await other.get(path)).status == 404
        export = await other.get(f"{CALLS}/export?format=ndjson&account=acme")
        assert export.text == ""

        await operator.sign_in(TOKEN)
        assert await listed(operator, 1, "?account=acme&channel=house") == [path]
        assert "house" in (await operator.get(path)).text.replace(MODEL, "")

    async with browser(stand.url) as visitor:
        for hidden in (CALLS, path, f"{CALLS}/export"):
            assert (await visitor.get(hidden)).headers["Location"] == "/console/sign-in"


async def test_usage_is_shown_by_end_user_and_tag(stand: ConsoleStand) -> None:
    """The highest charge is first. Each has a page by days, without the calls of other accounts."""
    key = await stand.billing.open_account("acme", NANO)
    foreign = await stand.billing.open_account("globex", NANO)
    for number, (user, secret) in enumerate((("ann", key), ("bob", key), ("bob", key),
                                             ("bob", foreign), ("<i>eve", key))):  # fmt: skip
        tags = {"x-pomogator-tags": f"team={'blue' if number else 'red-green'}"}
        body = {**BODY, "user": user}
        async with stand.billing.gateway.http.post(
            f"{stand.billing.gateway.base_url}/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {secret}", **tags},
        ) as response:
            assert response.status == 200, await response.text()
    await stand.browser.sign_in(key)
    await listed(stand.browser, 4)

    usage = (await stand.browser.get("/console/usage")).text
    places = [usage.index(name) for name in (">bob</a>", "&lt;i&gt;eve</a>", ">ann</a>")]
    assert places[0] == min(places)
    assert usage.index(">team: blue</a>") < usage.index(">team: red-green</a>")
    assert "<i>eve" not in usage
    for link, calls in (("end_user=bob", 2), ("tag_name=team&amp;tag_value=blue", 3),
                        ("tag_name=team&amp;tag_value=red-green", 1),
                        ("end_user=%3Ci%3Eeve", 1)):  # fmt: skip
        (path,) = re.findall(rf'href="(/console/usage\?days=30&amp;{re.escape(link)})"', usage)
        page = (await stand.browser.get(path.replace("&amp;", "&"))).text
        assert f": {calls}</title>" in page
        assert f"{FIGURES['en'].usd(calls * COST_NANO)}</dd>" in page
        assert "<i>eve" not in page
    nobody = (await stand.browser.get("/console/usage?end_user=nobody&days=7")).text
    assert nobody.count("No calls in this time.") == 3
