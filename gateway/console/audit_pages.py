"""Audit pages: changes of accounts and keys, with their actors."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import grpc
from aiohttp import web
from pomogator.accounts.v1 import audit_service_pb2 as pb
from pomogator.accounts.v1.audit_service_pb2_grpc import AuditServiceStub
from pomogator.tenants.v1 import tenant_service_pb2 as tenants_pb
from pomogator.tenants.v1.tenant_service_pb2_grpc import TenantServiceStub

from gateway.console.askers import ask, operator_of, tenant_of
from gateway.console.pages import AUDIT, Pages
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

PAGE_SIZE = 100
FIELDS = ("account", "actor")
ACTORS: Mapping[int, str] = {1: "operator", 2: "key", 3: "system"}
"""Kinds of actors, by their number in the contract."""


class AuditPages:
    """Pages of the audit log, for tenants and for operators."""

    def __init__(self, pages: Pages, channel: grpc.aio.Channel) -> None:
        """`channel` leads to the public services for `own`, to the operators' for `all`."""
        self._pages = pages
        self._channel = channel

    async def own(self, visit: Visit) -> web.Response:
        """A page of the changes to the account of a tenant, whose key administers it."""
        token = visit.request.query.get("after", "")
        request = tenants_pb.ListAuditEntriesRequest(page_size=PAGE_SIZE, page_token=token)
        method = TenantServiceStub(self._channel).ListAuditEntries
        try:
            page = await ask(method, request, tenant_of(visit))
        except ApiError as error:
            if error.reason != ErrorReason.PERMISSION_DENIED:
                raise
            return self._pages.render(visit, "keys_denied", status=error.status, error=error)
        return self._render(visit, page, {})

    async def all(self, visit: Visit) -> web.Response:
        """A page of all changes, or of those that an operator's filter selects."""
        query = visit.request.query
        fields = {name: query.get(name, "").strip() for name in FIELDS}
        token = query.get("after", "")
        request = pb.ListAuditEntriesRequest(page_size=PAGE_SIZE, page_token=token, **fields)
        method = AuditServiceStub(self._channel).ListAuditEntries
        page = await ask(method, request, operator_of(visit))
        return self._render(visit, page, fields)

    def _render(
        self,
        visit: Visit,
        page: pb.ListAuditEntriesResponse | tenants_pb.ListAuditEntriesResponse,
        fields: Mapping[str, str],
    ) -> web.Response:
        query = {**fields, "after": page.next_page_token}
        return self._pages.render(
            visit,
            "audit",
            page=page,
            fields=fields,
            actors=ACTORS,
            next_url=f"{AUDIT}?{urlencode(query)}",
        )
