"""The console over a real service, as a browser uses it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys_pb

from gateway.console import sessions
from gateway.console.assets import ASSETS
from gateway.console.figures import FIGURES
from gateway.console.quick_starts import quick_starts
from gateway.http.auth_throttle import FAILURES
from gateway.server import serving_rest
from services.common.key_format import new_secret
from services.rpc.listener import listening
from tests.stand.billing_stand import COST_NANO, MODEL, NANO
from tests.stand.console_stand import EDGE, TOKEN, ConsoleStand, browser, console_stand
from tests.stand.gateway import running
from tests.stand.polling import until

CHAT = "/console/v1/chat/completions"
PAGES = (
    "/console",
    "/console/usage",
    "/console/playground",
    "/console/models",
    "/console/quick-starts",
)
PROXY_SAYS_TLS = {"X-Forwarded-Proto": "https"}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    async with console_stand(tmp_path) as stand:
        yield stand


async def test_a_key_opens_the_pages_of_its_account(stand: ConsoleStand) -> None:
    """Without a key each page leads to the sign-in."""
    key = await stand.billing.open_account("acme", 5 * NANO)
    for path in PAGES:
        answer = await stand.browser.get(path)
        assert (answer.status, answer.headers["Location"]) == (303, "/console/sign-in")

    entered = await stand.browser.sign_in(key)

    assert (entered.status, entered.headers["Location"]) == (303, "/console")
    pages = [await stand.browser.get(path) for path in PAGES]
    assert [page.status for page in pages] == [200] * len(PAGES)
    overview, _, playground, models, starts = (page.text for page in pages)
    assert "$5.00" in overview
    assert key[:14] in overview
    assert f"<option>{MODEL}</option>" in playground
    assert f"<code>{MODEL}</code>" in models
    assert "$3.00" in models
    assert "$15.00" in models
    assert f"curl {stand.url}/v1/chat/completions" in starts
    assert all(key not in page.text for page in pages)


async def test_all_pages_have_security_headers(stand: ConsoleStand) -> None:
    """A failure and the sign-in have them, too."""
    key = await stand.billing.open_account("acme", NANO)
    answers = [await stand.browser.get("/console/sign-in")]
    answers.append(await stand.browser.post("/console/sign-in", {"key": "wrong"}))
    await stand.browser.sign_in(key)
    answers += [await stand.browser.get(path) for path in PAGES]
    stand.browser.csrf = "wrong"
    answers.append(await stand.browser.post("/console/sign-out", {}))

    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_every_failure_has_a_page(
    stand: ConsoleStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown paths have one, and so has a fault of the gateway, without its details."""
    await stand.browser.sign_in(TOKEN)
    unknown = await stand.browser.get("/console/no-such/page")
    monkeypatch.setattr("gateway.console.process_pages.MEMORY_STAGES", ((None, "no.text"),))
    broken = await stand.browser.get("/console/load")

    assert (unknown.status, broken.status) == (404, 500)
    for answer in (unknown, broken):
        assert answer.text.startswith("<!doctype html>")
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert f"<code>{broken.headers['x-request-id']}</code>" in broken.text
    assert "Error" not in broken.text


async def test_the_session_is_a_cookie_that_no_script_reads(stand: ConsoleStand) -> None:
    """It ends with the browser, and comes with no request of another site."""
    key = await stand.billing.open_account("acme", NANO)

    cookie = (await stand.browser.sign_in(key)).headers["Set-Cookie"]

    assert cookie.startswith(f"pomogator-{stand.url.rpartition(':')[2]}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Max-Age" not in cookie
    assert "expires" not in cookie.lower()
    assert "Secure" not in cookie


async def test_over_tls_the_cookie_is_bound_to_the_host(tmp_path: Path) -> None:
    """Only a trusted proxy may say that the browser speaks TLS."""
    trusting = replace(EDGE, trusted_proxies=("127.0.0.0/8",))
    for edge, name in ((trusting, "__Host-pomogator-"), (EDGE, "pomogator-")):
        state = tmp_path / name
        state.mkdir()
        async with console_stand(state, edge) as stand:
            answer = await stand.browser.get("/console/sign-in", PROXY_SAYS_TLS)
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith(name)
            assert ("Secure" in cookie.split("; ")) == (edge is trusting)


WRONG_KEYS = {"no": "", "short": "sk-pg-short", "unknown": new_secret(), "Cyrillic": "с кириллицей"}


@pytest.mark.parametrize("key", WRONG_KEYS.values(), ids=WRONG_KEYS)
async def test_a_wrong_key_is_refused(stand: ConsoleStand, key: str) -> None:
    """The page says so, and does not repeat it."""
    answer = await stand.browser.sign_in(key)

    assert answer.status == 401
    assert 'role="alert"' in answer.text
    assert not key or key not in answer.text


async def test_guesses_are_throttled(stand: ConsoleStand) -> None:
    """After a burst of failures the sign-in says when to try again. A valid key still works."""
    key = await stand.billing.open_account("acme", NANO)
    statuses = [(await stand.browser.sign_in(new_secret())).status for _ in range(FAILURES)]

    refused = await stand.browser.sign_in(new_secret())

    assert statuses == [401] * FAILURES
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await stand.browser.sign_in(key)).status == 303


async def test_guesses_count_by_the_address_of_the_browser(tmp_path: Path) -> None:
    """A trusted proxy names the address. Another address may still guess, also at the token."""
    trusting = replace(EDGE, trusted_proxies=("127.0.0.0/8",))
    async with console_stand(tmp_path, trusting) as stand:
        await stand.browser.get("/console/sign-in")

        async def guess(credential: str, address: str) -> int:
            headers = {"X-Forwarded-For": address}
            form = {"key": credential}
            return (await stand.browser.post("/console/sign-in", form, headers)).status

        for number in range(FAILURES):
            credential = f"token-{number}" if number % 2 else new_secret()
            assert await guess(credential, "203.0.113.7") == 401
        assert await guess(f"{TOKEN}x", "203.0.113.7") == 429
        assert await guess(new_secret(), "203.0.113.7") == 429
        assert await guess(new_secret(), "203.0.113.8") == 401


async def test_a_change_needs_the_token_of_the_session(stand: ConsoleStand) -> None:
    """Without it, with another session's, or from another site, nothing is changed."""
    key = await stand.billing.open_account("acme", NANO)
    await stand.browser.sign_in(key)
    own = stand.browser.csrf
    async with browser(stand.url) as other:
        await other.sign_in(key)
        foreign = other.csrf

    for token, headers in (
        ("", {}),
        (foreign, {}),
        (own, {"Origin": "https://evil.example"}),
        (own, {"Origin": "null"}),
        (own, {"Sec-Fetch-Site": "cross-site"}),
    ):
        fields = {"csrf": token}
        assert (await stand.browser.post("/console/sign-out", fields, headers)).status == 403
        status = await _chat_status(stand, {"X-CSRF-Token": token, **headers})
        assert status == 403

    assert not stand.billing.upstream.requests
    assert (await stand.browser.get("/console")).status == 200
    left = await stand.browser.post("/console/sign-out", {"csrf": own}, {"Origin": stand.url})
    assert left.status == 303
    assert (await stand.browser.get("/console")).status == 303


async def test_only_forms_are_accepted(stand: ConsoleStand) -> None:
    """JSON, files and large bodies are refused before they are read."""
    await stand.browser.get("/console/sign-in")
    csrf, url = stand.browser.csrf, f"{stand.url}/console/sign-in"
    async with stand.browser.http.post(url, json={"csrf": csrf}) as response:
        assert response.status == 415
    async with stand.browser.http.post(url, data={"csrf": csrf, "key": "k" * 100_000}) as response:
        assert response.status == 413


async def test_the_playground_streams_over_the_public_api(stand: ConsoleStand) -> None:
    """Its events have the cost, which the account pays. It needs a session."""
    key = await stand.billing.open_account("acme", NANO)
    await stand.browser.get("/console/sign-in")
    assert await _chat_status(stand, {"X-CSRF-Token": stand.browser.csrf}) == 401
    await stand.browser.sign_in(key)

    headers = {"X-CSRF-Token": stand.browser.csrf}
    asked = {**ASKED, "usage": {"include": True}}
    async with stand.browser.http.post(stand.url + CHAT, json=asked, headers=headers) as response:
        events = (await response.text()).strip().split("\n\n")

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert events[-1] == "data: [DONE]"
    (usage,) = [
        chunk["usage"]
        for event in events[:-1]
        if (chunk := json.loads(event.removeprefix("data: "))).get("usage")
    ]
    assert usage["cost"] > 0
    spent = NANO - await stand.billing.balance(key)
    assert spent == round(usage["cost"] * NANO)


async def test_a_revoked_key_ends_the_session(stand: ConsoleStand) -> None:
    """The next page leads to the sign-in, since the session holds nothing but the key."""
    made = await stand.billing.make_key("acme")
    await stand.browser.sign_in(made.secret)
    assert (await stand.browser.get("/console")).status == 200

    await stand.billing.keys.RevokeKey(keys_pb.RevokeKeyRequest(key_id=made.key.key_id))

    async def has_ended() -> bool:
        answer = await stand.browser.get("/console")
        return (answer.status, answer.headers.get("Location")) == (303, "/console/sign-in")

    await until(has_ended)
    status = await _chat_status(stand, {"X-CSRF-Token": stand.browser.csrf})
    assert status in {401, 403}


async def test_two_tenants_see_their_own_account_only(stand: ConsoleStand) -> None:
    """They load pages at the same time."""
    ours = await stand.billing.open_account("acme", 5 * NANO)
    theirs = await stand.billing.open_account("globex", 7 * NANO)
    await stand.billing.settled(ours)
    async with browser(stand.url) as other:
        await stand.browser.sign_in(ours)
        await other.sign_in(theirs)
        for path in PAGES:
            mine, foreign = await asyncio.gather(stand.browser.get(path), other.get(path))
            assert mine.status == foreign.status == 200
            for text in ("globex", theirs[:14], "$7.00"):
                assert text not in mine.text
            for text in ("acme", ours[:14], "$5.00"):
                assert text not in foreign.text


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("curl", "bash"),
        ("Python: openai", sys.executable),
        ("Python: anthropic", sys.executable),
        ("Python: gRPC", sys.executable),
    ],
    ids=["curl", "openai", "anthropic", "grpc"],
)
async def test_quick_starts_work_as_they_are(stand: ConsoleStand, name: str, command: str) -> None:
    """Each is copied from the page, with the key in the variable that it names."""
    if name == "curl" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    key = await stand.billing.open_account("acme", NANO)
    gateway = stand.billing.gateway
    async with listening(gateway.service.register, "127.0.0.1:0", grace_s=1) as grpc:
        starts = quick_starts(gateway.url, MODEL, grpc)
        (code,) = [start.code for start in starts if start.name == name]
        # The wheel of the stubs is not installed beside the gateway, which has the same modules.
        process = await asyncio.create_subprocess_exec(
            *(command, "-c", code.replace("pomogator_proto.", "pomogator.")),
            env={**os.environ, "POMOGATOR_KEY": key},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()

    assert process.returncode == 0
    assert "Hi" in out.decode()
    assert await stand.billing.balance(key) < NANO


def test_quick_starts_have_grpc_only_with_a_listener() -> None:
    """It has TLS where the REST API has it."""
    url = "https://api.example"
    names = {start.name for start in quick_starts(url, MODEL)}
    found = {start.name: start.code for start in quick_starts(url, MODEL, "grpc.example:443")}

    assert found.keys() - names == {"Python: gRPC"}
    assert 'grpc.secure_channel("grpc.example:443", ' in found["Python: gRPC"]
    assert not any("@" in code for code in found.values())


async def test_usage_is_shown_by_day_and_model(stand: ConsoleStand) -> None:
    """The page has the usage of all keys of the account. The charts show the same sums."""
    key = await stand.billing.open_account("acme", NANO)
    other = (await stand.billing.make_key("acme")).secret
    for each in (key, key, other):
        assert (await stand.billing.ask(each)).status == 200
    await stand.billing.settled(other)
    await stand.browser.sign_in(key)

    for days in ("", "?days=7", "?days=90", "?days=x"):
        text = (await stand.browser.get(f"/console/usage{days}")).text
        assert f"<code>{MODEL}</code>" in text
        assert text.count(f"{FIGURES['en'].usd(3 * COST_NANO)}</td>") == 2  # the model, the total
        assert f": {FIGURES['en'].usd(3 * COST_NANO)}</title>" in text
        assert ": 3</title>" in text


async def test_language_and_theme_are_kept(stand: ConsoleStand) -> None:
    """The answer leads back to the page of the choice, and to no other site."""
    assert "Sign in" in (await stand.browser.get("/console/sign-in")).text
    for back, to in (
        ("/console/sign-in", "/console/sign-in"),
        ("https://evil.example/console", "/console"),
        ("/console//evil.example", "/console"),
        ("/console/../\r\nX: y", "/console"),
    ):
        fields = {"language": "ru", "theme": "dark", "back": back}
        answer = await stand.browser.post("/console/preferences", fields)
        assert (answer.status, answer.headers["Location"]) == (303, to)

    page = await stand.browser.get("/console/sign-in")
    assert '<html lang="ru" data-theme="dark">' in page.text
    assert "Ключ API" in page.text
    await stand.browser.post("/console/preferences", {"language": "xx", "theme": "<b>"})
    assert (await stand.browser.get("/console/sign-in")).text.count("data-theme") == 1


async def test_names_are_escaped(stand: ConsoleStand) -> None:
    """The name of a key cannot become a part of the page's markup."""
    request = keys_pb.CreateKeyRequest(account="acme", display_name="<script>alert(1)</script>")
    made = await stand.billing.keys.CreateKey(request)
    await stand.browser.sign_in(made.secret)

    page = (await stand.browser.get("/console")).text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("name", ASSETS)
async def test_assets_are_compressed_and_kept(stand: ConsoleStand, name: str) -> None:
    """Browsers keep an asset with its version for ever, without a version not at all."""
    url = f"/console/static/{name}"
    kept = await stand.browser.get(f"{url}?v={ASSETS[name].version}")
    other = await stand.browser.get(url, {"Accept-Encoding": "identity"})

    assert kept.headers["Content-Encoding"] == "gzip"
    assert "immutable" in kept.headers["Cache-Control"]
    assert "Content-Encoding" not in other.headers
    assert kept.text == other.text
    assert other.headers["Cache-Control"] == "no-store"
    assert (await stand.browser.get("/console/static/no.css")).status == 404


async def test_the_public_listener_serves_the_console_where_enabled(tmp_path: Path) -> None:
    """Elsewhere the page is unknown. The base URL is the configured one, or the browser's."""
    for number, edge in enumerate((EDGE, replace(EDGE, public_url="https://api.example"))):
        state = tmp_path / str(number)
        state.mkdir()
        async with running(state, edge=edge) as gateway, browser(gateway.url) as client:
            await client.sign_in(gateway.key)
            starts = await client.get("/console/quick-starts")
            assert f"curl {edge.public_url or gateway.url}/v1/chat" in starts.text

    (tmp_path / "off").mkdir()
    async with running(tmp_path / "off") as gateway, browser(gateway.url) as client:
        assert (await client.get("/console")).status == 404
        assert (await client.get("/console/sign-in")).status == 404


async def test_edges_with_one_secret_accept_each_others_sessions(tmp_path: Path) -> None:
    """Replicas behind a load balancer share it. Edges with other secrets refuse them."""
    async with running(tmp_path, edge=EDGE) as gateway:
        service = gateway.service
        for secret, status in ((EDGE.console_secret, 200), ("another" * 6, 303)):
            edge = replace(EDGE, console_secret=secret)
            async with (
                browser(gateway.url) as client,
                service.channel() as channel,
                serving_rest(channel, "127.0.0.1:0", edge) as second,
            ):
                await client.sign_in(gateway.key)
                client.url = f"http://{second}"
                as_balanced = {"Host": gateway.url.removeprefix("http://")}
                assert (await client.get("/console/models", as_balanced)).status == status


async def test_gateways_on_one_host_keep_their_sessions_apart(tmp_path: Path) -> None:
    """Browsers share cookies between ports, so a sign-in at one port must not end another."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    async with (
        console_stand(tmp_path / "first") as first,
        console_stand(tmp_path / "second") as second,
    ):
        ours = await first.billing.open_account("acme", NANO)
        theirs = await second.billing.open_account("globex", NANO)
        client = first.browser
        await client.sign_in(ours)
        client.url = second.url
        assert (await client.get("/console")).status == 303
        await client.sign_in(theirs)
        assert "globex" in (await client.get("/console")).text

        client.url = first.url
        assert "acme" in (await client.get("/console")).text
        await client.post("/console/sign-out", {})
        client.url = second.url
        assert "globex" in (await client.get("/console")).text


@pytest.mark.parametrize("is_operator", [False, True], ids=["tenant", "operator"])
async def test_a_sign_out_ends_all_copies_of_the_session(
    stand: ConsoleStand, is_operator: bool
) -> None:
    """A copied cookie is no longer valid either."""
    credential = TOKEN if is_operator else await stand.billing.open_account("acme", NANO)
    first = "/console/accounts" if is_operator else "/console/models"
    await stand.browser.sign_in(credential)
    name, value = next((each.key, each.value) for each in stand.browser.http.cookie_jar)
    copy = {"Cookie": f"{name}={value}"}
    async with browser(stand.url) as thief:
        assert (await thief.get(first, copy)).status == 200
        await stand.browser.get(first)
        assert (await stand.browser.post("/console/sign-out", {})).status == 303

        assert (await thief.get(first, copy)).headers["Location"] == "/console/sign-in"
        if not is_operator:
            assert (await thief.get("/console/usage", copy)).status == 303
            asked = {"X-CSRF-Token": stand.browser.csrf, **copy}
            async with thief.http.post(stand.url + CHAT, json=ASKED, headers=asked) as response:
                assert response.status in {401, 403}
    await stand.browser.sign_in(credential)
    assert (await stand.browser.get(first)).status == 200


async def test_a_page_that_refreshes_itself_does_not_prolong_the_session(
    stand: ConsoleStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only pages that a person loads prolong it."""
    monkeypatch.setattr(sessions, "RENEWAL_S", 0)
    await stand.browser.sign_in(TOKEN)
    by_script = await stand.browser.get("/console/load", {"Sec-Fetch-Dest": "empty"})
    by_person = await stand.browser.get("/console/load", {"Sec-Fetch-Dest": "document"})

    assert "Set-Cookie" not in by_script.headers
    assert "Set-Cookie" in by_person.headers


async def _chat_status(stand: ConsoleStand, headers: dict[str, str]) -> int:
    async with stand.browser.http.post(stand.url + CHAT, json=ASKED, headers=headers) as response:
        await response.read()
        return response.status
