"""Keys of a tenant's account, over a real service."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stand.billing_stand import NANO
from tests.stand.console_stand import Answer, ConsoleStand, browser, console_stand

KEYS = "/console/keys"
SECRET = re.compile(r"sk-pg-\w{49}")
ONCE_ID = re.compile(r'name="once_id" value="(\w+)"')


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    """A console that a key has signed in to which administers its account, `acme`."""
    async with console_stand(tmp_path) as stand:
        await stand.billing.open_account("acme", NANO)
        made = await stand.billing.make_key("acme", administers_account=True)
        await stand.browser.sign_in(made.secret)
        yield stand


async def send(stand: ConsoleStand, **fields: str) -> Answer:
    """Send a form of the page."""
    return await stand.browser.post(KEYS, fields)


async def test_a_tenant_makes_changes_and_revokes_keys(stand: ConsoleStand) -> None:
    """Each secret is on one page alone; the key works until it is revoked."""
    (once_id, *_) = ONCE_ID.findall((await stand.browser.get(KEYS)).text)
    fields = {"action": "create", "once_id": once_id, "display_name": "bot"}
    made = await send(stand, **fields, requests_per_minute="60")
    (secret,) = SECRET.findall(made.text)
    assert not SECRET.findall((await send(stand, **fields, requests_per_minute="60")).text)
    page = (await stand.browser.get(KEYS)).text
    assert secret not in page
    assert "60 requests a minute" in page
    (key,) = [key for key in await stand.keys_of("acme") if key.display_name == "bot"]

    changed = await send(stand, action="change", key_id=key.key_id, display_name="robot")
    assert changed.status == 303
    rotated = await send(stand, action="rotate", key_id=key.key_id, overlap_hours="1")
    (newer,) = SECRET.findall(rotated.text)
    assert [(await stand.billing.ask(each)).status for each in (secret, newer)] == [200, 200]
    assert (await send(stand, action="revoke", key_id=key.key_id)).status == 303

    page = (await stand.browser.get(KEYS)).text
    assert "robot" in page
    assert "revoked 20" in page
    assert (await send(stand, action="destroy", key_id=key.key_id)).status == 400


async def test_keys_of_other_accounts_do_not_exist(stand: ConsoleStand) -> None:
    """Every form that names one gets the answer for an unknown key."""
    theirs = await stand.billing.open_account("globex", NANO)
    (foreign,) = await stand.keys_of("globex")
    assert foreign.key_id not in (await stand.browser.get(KEYS)).text

    for action in ("change", "rotate", "revoke"):
        answer = await send(stand, action=action, key_id=foreign.key_id)
        assert answer.status == 404
        assert not SECRET.findall(answer.text)

    assert await stand.keys_of("globex") == [foreign]
    assert (await stand.billing.ask(theirs)).status == 200


async def test_a_key_that_does_not_administer_sees_no_others(stand: ConsoleStand) -> None:
    """Its page says so; forms are refused."""
    plain = (await stand.billing.make_key("acme")).secret
    known = [key.key_id for key in await stand.keys_of("acme")]
    async with browser(stand.url) as other:
        await other.sign_in(plain)
        page = await other.get(KEYS)
        assert page.status == 403
        assert not any(key_id in page.text for key_id in known)
        for action in ("create", "change", "rotate", "revoke"):
            answer = await other.post(KEYS, {"action": action, "key_id": known[0]})
            assert answer.status == 403

    assert [key.key_id for key in await stand.keys_of("acme")] == known
