"""Audit pages: changes of accounts and keys, with their actors."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import grpc
from aiohttp import web

from gateway.console.askers import operator_of, tenant_of
from gateway.console.audit_calls import AuditPage, all_changes, changes_of_account
from gateway.console.pages import AUDIT, Pages
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

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
        try:
            page = await changes_of_account(
                self._channel, tenant_of(visit), visit.request.query.get("after", "")
            )
        except ApiError as error:
            if error.reason != ErrorReason.PERMISSION_DENIED:
                raise
            return self._pages.render(visit, "keys_denied", status=error.status, error=error)
        return self._render(visit, page, {})

    async def all(self, visit: Visit) -> web.Response:
        """A page of all changes, or of those that an operator's filter selects."""
        query = visit.request.query
        fields = {name: query.get(name, "").strip() for name in FIELDS}
        page = await all_changes(
            self._channel,
            operator_of(visit),
            query.get("after", ""),
            fields["account"],
            fields["actor"],
        )
        return self._render(visit, page, fields)

    def _render(self, visit: Visit, page: AuditPage, fields: Mapping[str, str]) -> web.Response:
        query = {**fields, "after": page.next_token}
        return self._pages.render(
            visit,
            "audit",
            page=page,
            fields=fields,
            actors=ACTORS,
            next_url=f"{AUDIT}?{urlencode(query)}",
        )
