"""The console of a gateway with prices, and a client that behaves like a browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
from pomogator.accounts.v1 import key_service_pb2 as keys_pb

from gateway.config import EdgeConfig
from gateway.console.operator_access import OperatorAccess
from gateway.overload.body_budget import BodyBudget
from gateway.server import serving_console
from services.serving.core_backend import CoreBackend
from tests.stand.billing_stand import BillingStand, billing_stand

SECRET = "secret-of-the-consoles-of-all-tests"
TOKEN = "token-of-the-operators-0123456789"
EDGE = EdgeConfig(console=True, console_secret=SECRET)

CSRF = re.compile(r'name="csrf" value="([\w-]+)"')


class Answer(NamedTuple):
    """An answer that was read."""

    status: int
    text: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Browser:
    """A client with cookies. It sends the CSRF token of the last page that had one."""

    url: str
    http: aiohttp.ClientSession
    csrf: str = field(default="", init=False)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Load a page, without following a redirection."""
        async with self.http.get(
            self.url + path, headers=headers, allow_redirects=False
        ) as response:
            return await self._read(response)

    async def post(
        self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form."""
        form = {"csrf": self.csrf, **fields}
        async with self.http.post(
            self.url + path, data=form, headers=headers, allow_redirects=False
        ) as response:
            return await self._read(response)

    async def sign_in(self, key: str, name: str = "") -> Answer:
        """Load the form, and send it with the key, or with a token and a name."""
        await self.get("/console/sign-in")
        answer = await self.post("/console/sign-in", {"key": key, "name": name})
        if answer.status == 303:
            await self.get("/console")
        return answer

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        text = await response.text()
        if found := CSRF.search(text):
            self.csrf = found[1]
        return Answer(response.status, text, response.headers)


@dataclass(slots=True)
class ConsoleStand:
    """A gateway, the address of its console, and a browser."""

    billing: BillingStand
    url: str
    browser: Browser

    async def keys_of(self, account: str, key_id: str = "") -> list[keys_pb.Key]:
        """The keys of an account, or the one with this ID."""
        request = keys_pb.ListKeysRequest(account=account)
        listed = await self.billing.keys.ListKeys(request)
        return [key for key in listed.keys if key_id in {"", key.key_id}]


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Browser]:
    """Another browser, without a cookie."""
    jar = aiohttp.CookieJar(unsafe=True)  # It would ignore cookies of IP addresses.
    async with aiohttp.ClientSession(cookie_jar=jar) as http:
        yield Browser(url, http)


@asynccontextmanager
async def console_stand(state: Path, edge: EdgeConfig = EDGE) -> AsyncIterator[ConsoleStand]:
    """The console over a gateway with its state in `state`."""
    async with billing_stand(state) as billing:
        service, bodies = billing.gateway.service, BodyBudget(0)
        async with (
            service.channel() as channel,
            service.operators_channel() as operators,
            serving_console(
                channel,
                "127.0.0.1:0",
                edge,
                backend=CoreBackend(service, channel),
                operators=OperatorAccess(operators, TOKEN, bodies),
                bodies=bodies,
            ) as address,
            browser(f"http://{address}") as client,
        ):
            yield ConsoleStand(billing, f"http://{address}", client)
