"""Console: its routes, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import grpc
from aiohttp import web

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.console import assets
from gateway.console.account_calls import AccountCalls
from gateway.console.pages import Pages, redirect
from gateway.console.sessions import Role, Sessions
from gateway.console.sign_in_pages import SIGN_IN, SignInPages
from gateway.console.tenant_pages import CHAT_PATH, ENTRIES, HOME, TenantPages
from gateway.console.visit import Visit, Visits
from gateway.errors import ApiError
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.middleware import OUTCOME, Handler

Page: TypeAlias = Callable[[Visit], Awaitable[web.StreamResponse]]
Action: TypeAlias = Callable[[Visit, Mapping[str, str]], Awaitable[web.StreamResponse]]
"""Answers a form with these fields."""


class Console:
    """The console of one application."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        backend: Backend,
        complete: Handler,
        throttle: AuthThrottle,
        config: EdgeConfig,
    ) -> None:
        """`channel` leads to the public services; `complete` answers chat completions."""
        sessions = Sessions(config.console_secret)
        self._visits = Visits(sessions, config, "")
        self._pages = Pages({"tenant": ENTRIES})
        self._sign_in = SignInPages(self._pages, self._visits, sessions, backend, throttle)
        self._tenant = TenantPages(
            self._pages, AccountCalls(channel), backend, complete, config.public_url
        )

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes for aiohttp's router."""
        tenant, sign_in = self._tenant, self._sign_in
        pages: Mapping[str, Page] = {
            HOME: tenant.overview,
            "/console/playground": tenant.playground,
            "/console/models": tenant.models,
            "/console/quick-starts": tenant.quick_starts,
        }
        return [
            web.get(f"{assets.PATH}{{name}}", assets.serve),
            web.get(SIGN_IN, self._page(sign_in.show, None)),
            web.post(SIGN_IN, self._action(sign_in.enter, None)),
            web.post("/console/sign-out", self._action(sign_in.leave, None)),
            web.post("/console/preferences", self._action(sign_in.prefer, None)),
            web.post(CHAT_PATH, self._chat),
            *(web.get(path, self._page(page, "tenant")) for path, page in pages.items()),
        ]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._tenant.chat(self._visits.of(request))

    def _page(self, page: Page, role: Role | None) -> Handler:
        """Return the handler of a page, for sessions of this role."""

        async def answer(request: web.Request) -> web.StreamResponse:
            visit = self._visits.of(request)
            if role is not None and visit.session.role != role:
                return redirect(SIGN_IN)
            response = await self._answered(visit, page(visit))
            self._visits.keep(visit, response)
            return response

        return answer

    def _action(self, action: Action, role: Role | None) -> Handler:
        """Return the handler of a form, for sessions of this role."""

        async def answer(request: web.Request) -> web.StreamResponse:
            visit = self._visits.of(request)
            if role is not None and visit.session.role != role:
                return redirect(SIGN_IN)
            return await self._answered(visit, self._act(visit, action))

        return answer

    async def _act(self, visit: Visit, action: Action) -> web.StreamResponse:
        return await action(visit, await self._visits.form(visit))

    async def _answered(
        self, visit: Visit, answer: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """Return the answer, or the page of its failure."""
        try:
            return await answer
        except ApiError as error:
            visit.request[OUTCOME]["code"] = error.code
            if error.row.failed_auth:
                return self._sign_in.end(visit)
            return self._pages.render(visit, "error", status=error.status, error=error)
