"""Every route of the console that changes something: what it needs beside a cookie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from gateway.console.console import Console
from gateway.console.operator_access import OperatorAccess
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.trusted_proxies import TrustedProxies
from gateway.overload.body_budget import BodyBudget
from services.serving.core_backend import CoreBackend
from tests.stand.billing_stand import NANO
from tests.stand.console_stand import EDGE, TOKEN, ConsoleStand, browser, console_stand


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[ConsoleStand]:
    """A console of tenants and operators, with an account."""
    async with console_stand(tmp_path) as stand:
        yield stand


async def routes_of(stand: ConsoleStand) -> Sequence[tuple[str, str]]:
    """Return method and path of each route of a console."""
    service = stand.billing.gateway.service

    async def complete(_: web.Request) -> web.StreamResponse:
        raise AssertionError("nothing is asked")

    async with service.channel() as channel:
        console = Console(
            channel,
            CoreBackend(service, channel),
            complete,
            AuthThrottle(proxies=TrustedProxies(())),
            EDGE,
            OperatorAccess(channel, TOKEN, BodyBudget(0)),
        )
        routes = [route for route in console.routes() if isinstance(route, web.RouteDef)]
    return [(route.method, route.path.replace("{account}", "acme")) for route in routes]


async def test_routes_read_or_take_forms(stand: ConsoleStand) -> None:
    """No route has another method."""
    methods = {method for method, _ in await routes_of(stand)}

    assert methods == {"GET", "POST"}


@pytest.mark.parametrize("role", ["visitor", "tenant", "operator"])
async def test_no_form_is_taken_without_the_token_of_the_session(
    stand: ConsoleStand, role: str
) -> None:
    """Without it, with that of another session, and with that of before the sign-in."""
    key = await stand.billing.open_account("acme", NANO)
    before = stand.browser
    await before.get("/console/sign-in")
    of_visitor = before.csrf
    async with browser(stand.url) as another:
        await another.sign_in(key)
        of_another = another.csrf
    if role != "visitor":
        await before.sign_in(key if role == "tenant" else TOKEN)

    for path in [path for method, path in await routes_of(stand) if method == "POST"]:
        for token in ("", of_another, *([] if role == "visitor" else [of_visitor])):
            before.csrf = token
            answer = await before.post(path, {}, {"X-CSRF-Token": token})
            leads_away = answer.headers.get("Location") == "/console/sign-in"
            assert answer.status == 403 or (answer.status == 303 and leads_away), path


async def test_no_page_of_operators_opens_for_others(stand: ConsoleStand) -> None:
    """Every route is for visitors, for the tenant's role, or for the operator's alone."""
    key = await stand.billing.open_account("acme", NANO)
    shared = {"/console", "/console/calls", "/console/calls/export", "/console/audit"}
    opened: dict[str, set[str]] = {}
    for credential in (key, TOKEN):
        async with browser(stand.url) as client:
            await client.sign_in(credential)
            pages = [path for method, path in await routes_of(stand) if method == "GET"]
            opened[credential] = {
                path for path in pages if (await client.get(path)).status not in {303, 404}
            }

    assert opened[key] & opened[TOKEN] <= shared
    assert len(opened[key]) >= 8
    assert len(opened[TOKEN]) >= 8
