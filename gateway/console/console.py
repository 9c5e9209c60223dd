"""Console: its routes, and the sessions and failures of all of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence

import grpc
from aiohttp import web

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.console import assets
from gateway.console.askers import operator_of, tenant_of
from gateway.console.audit_pages import AuditPages
from gateway.console.call_log_calls import CallLogCalls
from gateway.console.call_log_pages import CALLS, CallLogPages
from gateway.console.key_pages import KEYS, KeyPages
from gateway.console.operator_access import OperatorAccess
from gateway.console.operator_pages import OPERATOR_ENTRIES
from gateway.console.operator_routes import OperatorRoutes
from gateway.console.pages import AUDIT, Action, Page, Pages, redirect
from gateway.console.sessions import Role, Sessions
from gateway.console.sign_in_check import SignInCheck
from gateway.console.sign_in_pages import SIGN_IN, SignInPages
from gateway.console.tenant_pages import CHAT_PATH, ENTRIES, HOME, TenantPages
from gateway.console.usage_pages import USAGE, UsagePages
from gateway.console.visit import Visit, Visits
from gateway.errors import ApiError, internal
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.middleware import OUTCOME, Handler
from services.domain.error_reason import ErrorReason

log = logging.getLogger("gateway.console")


class Console:
    """The console of one application."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        backend: Backend,
        complete: Handler,
        throttle: AuthThrottle,
        config: EdgeConfig,
        operators: OperatorAccess | None = None,
    ) -> None:
        """`channel` leads to the public services; `complete` answers chat completions.

        Without `operators` it serves tenants alone.
        """
        sessions, token = Sessions(config.console_secret), operators.token if operators else ""
        self._visits = Visits(sessions, config, token)
        self._pages = Pages({"tenant": ENTRIES, "operator": OPERATOR_ENTRIES})
        key_check = SignInCheck(backend, sessions, token)
        self._sign_in = SignInPages(self._pages, self._visits, key_check, throttle)
        self._tenant = TenantPages(self._pages, channel, backend, complete, config)
        self._usage = UsagePages(self._pages, channel)
        self._call_logs: dict[Role, CallLogPages] = {
            "tenant": CallLogPages(self._pages, CallLogCalls(channel), tenant_of, sees_all=False)
        }
        if operators:
            self._call_logs["operator"] = CallLogPages(
                self._pages, CallLogCalls(operators.channel), operator_of, sees_all=True
            )
        self._keys = KeyPages(self._pages, channel)
        self._audits: dict[Role, Page] = {"tenant": AuditPages(self._pages, channel).own}
        if operators:
            self._audits["operator"] = AuditPages(self._pages, operators.channel).all
        self._operator = OperatorRoutes(self._pages, operators) if operators else None

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes for aiohttp's router."""
        tenant, sign_in = self._tenant, self._sign_in
        pages: Mapping[str, Page] = {
            KEYS: self._keys.keys,
            USAGE: self._usage.usage,
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
            web.post(KEYS, self._action(self._keys.change, "tenant")),
            web.get(HOME, self._home),
            *self._call_log_routes(),
            web.get(AUDIT, self._by_role(self._audits)),
            *(web.get(path, self._page(page, "tenant")) for path, page in pages.items()),
            *self._operator_routes(),
            web.get("/console/{path:.+}", self._page(self._no_page, None)),
        ]

    def _call_log_routes(self) -> Sequence[web.AbstractRouteDef]:
        """Pages of tenants and of operators at the same URLs."""
        logs = self._call_logs.items()
        return [
            web.get(CALLS, self._by_role({role: log.calls for role, log in logs})),
            web.get(f"{CALLS}/export", self._by_role({role: log.export for role, log in logs})),
            web.get(f"{CALLS}/{{call_id}}", self._by_role({role: log.call for role, log in logs})),
        ]

    def _by_role(self, pages: Mapping[Role, Page]) -> Handler:
        """Return the handler of a URL at which each role has a page of its own."""
        handlers = {role: self._page(page, role) for role, page in pages.items()}

        async def answer(request: web.Request) -> web.StreamResponse:
            handler = handlers.get(self._visits.of(request).session.role)
            return redirect(SIGN_IN) if handler is None else await handler(request)

        return answer

    def _operator_routes(self) -> Sequence[web.AbstractRouteDef]:
        operator = self._operator
        if operator is None:
            return []
        return [
            *(web.get(path, self._page(page, "operator")) for path, page in operator.pages.items()),
            *(
                web.post(path, self._action(action, "operator"))
                for path, action in operator.actions.items()
            ),
        ]

    async def _home(self, request: web.Request) -> web.StreamResponse:
        """Show a tenant the overview, and an operator the accounts."""
        if self._visits.of(request).session.role == "operator":
            return redirect(OPERATOR_ENTRIES[0].path)
        return await self._page(self._tenant.overview, "tenant")(request)

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
        form = await self._visits.form(visit)
        response = await action(visit, form)
        if visit.session.role != "visitor":
            # The service's log has the rest, by the ID.
            who = {"request_id": visit.request_id, "role": visit.session.role}
            done = {"path": visit.request.path, "action": form.get("action", "")}
            log.info("console.action", extra={**who, **done})
        return response

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
            return self._failed(visit, error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request.failed", extra={"request_id": visit.request_id})
            return self._failed(visit, internal(visit.request_id))

    def _failed(self, visit: Visit, error: ApiError) -> web.Response:
        visit.request[OUTCOME]["code"] = error.code
        return self._pages.render(visit, "error", status=error.status, error=error)

    async def _no_page(self, _: Visit) -> web.Response:
        raise ApiError(ErrorReason.UNKNOWN_URL, "There is no such page.")
