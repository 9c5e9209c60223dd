"""Pages of the audit log, for tenants and operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stand.billing_stand import NANO
from tests.stand.console_stand import TOKEN, ConsoleStand, browser, console_stand

AUDIT = "/console/audit"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    """A console that the operator Ann has signed in to, who has opened the account `acme`."""
    async with console_stand(tmp_path) as stand:
        await stand.browser.sign_in(TOKEN, "ann\r\n<b>")
        await stand.browser.get("/console/accounts")
        fields = {"account": "acme", "credit_usd": "1"}
        assert (await stand.browser.post("/console/accounts", fields)).status == 303
        yield stand


async def test_an_operator_sees_changes_with_the_names_of_their_actors(
    stand: ConsoleStand,
) -> None:
    """Names lose characters that no log can have. The filter selects by account and by actor."""
    await stand.billing.open_account("globex", NANO)

    everything = (await stand.browser.get(AUDIT)).text
    assert "AccountService.CreateAccount" in everything
    assert "<code>annb</code>" in everything
    ours = (await stand.browser.get(f"{AUDIT}?account=acme&actor=annb")).text
    assert "accounts/acme" in ours
    assert "globex" not in ours
    assert "accounts/acme" not in (await stand.browser.get(f"{AUDIT}?actor=bob")).text


async def test_a_tenant_sees_the_changes_of_its_account(stand: ConsoleStand) -> None:
    """Only a key that administers the account sees them. Names of operators are not shown."""
    await stand.billing.open_account("globex", NANO)
    admin = (await stand.billing.make_key("acme", administers_account=True)).secret
    plain = (await stand.billing.make_key("acme")).secret
    async with browser(stand.url) as tenant:
        await tenant.sign_in(admin)
        text = (await tenant.get(f"{AUDIT}?account=globex")).text
        assert "KeyService.CreateKey" in text
        assert "globex" not in text
        assert "annb" not in text
        assert admin not in text
    async with browser(stand.url) as tenant:
        await tenant.sign_in(plain)
        assert (await tenant.get(AUDIT)).status == 403
    async with browser(stand.url) as visitor:
        assert (await visitor.get(AUDIT)).headers["Location"] == "/console/sign-in"
