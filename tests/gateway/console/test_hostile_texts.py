"""Texts of callers, tenants, operators and providers in all pages, in both languages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys_pb

from gateway.console.texts import LANGUAGES
from tests.stand.billing_stand import MODEL, NANO
from tests.stand.console_stand import TOKEN, Browser, ConsoleStand, console_stand
from tests.stand.upstream import json_answer

CANARY = "canary"
HOSTILE = f"'\"></title></textarea><script>{CANARY}()</script>{{{{7*7}}}}"
QUOTED = "%22%3E%3Cscript%3Ecanary()"
CALL = re.compile(r"/console/calls/call-[0-9a-f]+")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[tuple[ConsoleStand, str]]:
    """A console with hostile texts wherever one can be, and the secret of a tenant's key."""
    async with console_stand(tmp_path) as stand:
        billing = stand.billing
        await billing.open_account("acme", NANO)
        made = await billing.keys.CreateKey(
            keys_pb.CreateKeyRequest(
                account="acme",
                display_name=HOSTILE,
                scope=keys_pb.KeyScope(models=[MODEL, HOSTILE], administers_account=True),
            )
        )
        url = f"{billing.gateway.base_url}/chat/completions"
        hostile = {"x-pomogator-tags": f"tag={HOSTILE.replace('=', '')[:60]}"}
        headers = {"Authorization": f"Bearer {made.secret}", "x-session-id": HOSTILE, **hostile}
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "user": HOSTILE}
        failure = json_answer({"error": {"message": HOSTILE, "code": HOSTILE}}, status=400)
        for script in ((), [failure]):
            billing.script = script
            async with billing.gateway.http.post(url, json=body, headers=headers) as answer:
                await answer.read()
        yield stand, made.secret


async def pages_of(client: Browser, paths: Sequence[str]) -> str:
    """Return the texts of pages in all languages."""
    found = ""
    for language in LANGUAGES:
        fields = {"language": language, "back": "/console"}
        assert (await client.post("/console/preferences", fields)).status == 303
        for path in paths:
            answer = await client.get(path)
            assert answer.status < 500, (path, answer.text)
            found += answer.text
    return found


async def newest_call(client: Browser) -> str:
    """Return the path of the page of the newest call."""
    found = CALL.search((await client.get("/console/calls")).text)
    assert found
    return found[0]


async def test_no_text_of_others_is_markup_for_a_tenant(stand: tuple[ConsoleStand, str]) -> None:
    """The texts are names of keys, end users, sessions, tags, and errors of providers."""
    console, key = stand
    client = console.browser
    await client.sign_in(key)
    text = await pages_of(
        client,
        (
            *(
                "/console",
                "/console/keys",
                "/console/usage",
                "/console/calls",
                await newest_call(client),
            ),
            *("/console/audit", f"/console/playground?model={QUOTED}"),
            *("/console/models", "/console/quick-starts", f"/console/calls?end_user={QUOTED}"),
            *(f"/console/calls?since={QUOTED}", f"/console/calls?after={QUOTED}"),
        ),
    )

    assert CANARY in text
    assert f"<script>{CANARY}" not in text
    assert "{{7*7}}" in text


async def test_no_text_of_others_is_markup_for_an_operator(stand: tuple[ConsoleStand, str]) -> None:
    """The texts include reasons of disabled channels and failures of channels."""
    client = stand[0].browser
    await client.sign_in(TOKEN, name=HOSTILE)
    await client.get("/console/channels")
    disable = {"action": "disable", "channel": "house", "reason": HOSTILE}
    assert (await client.post("/console/channels", disable)).status == 303
    text = await pages_of(
        client,
        (
            *("/console/accounts", "/console/accounts/acme", "/console/channels", "/console/load"),
            *(
                "/console/limits",
                "/console/configuration",
                "/console/calls",
                await newest_call(client),
            ),
            *("/console/explain", "/console/audit", "/console/ledger"),
            *(f"/console/audit?actor={QUOTED}", f"/console/accounts/{QUOTED}"),
        ),
    )

    assert CANARY in text
    assert f"<script>{CANARY}" not in text
    assert "{{7*7}}" in text
