"""AuditService, for operators, and pages of the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
from pomogator.accounts.v1 import audit_service_pb2 as pb
from pomogator.accounts.v1 import audit_service_pb2_grpc as pb_grpc
from pomogator.tenants.v1 import tenant_service_pb2 as tenants

from services.accounts.proto_fields import account_name, stored_name, timestamp
from services.rpc.call_context import Context
from services.rpc.paging import START, Page
from services.storage.audit_entries import KEY, OPERATOR, SYSTEM, AuditEntry, list_entries
from services.storage.base import Database

ACTOR_TYPES: Mapping[str, pb.ActorType.ValueType] = {
    OPERATOR: pb.ACTOR_TYPE_OPERATOR,
    KEY: pb.ACTOR_TYPE_KEY,
    SYSTEM: pb.ACTOR_TYPE_SYSTEM,
}
NEWEST = (2**62, "")
"""Position before the first entry."""

_MARKUP = "markup_basis_points"

Request: TypeAlias = pb.ListAuditEntriesRequest | tenants.ListAuditEntriesRequest


class AuditServicer(pb_grpc.AuditServiceServicer):
    """Lists the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        """List entries, newest first."""
        del context
        account = account_name(request.account) if request.account else ""
        actor = stored_name("actor", request.actor)
        entries, token = await entries_page(self._database, request, account, actor)
        return pb.ListAuditEntriesResponse(audit_entries=entries, next_page_token=token)


async def entries_page(
    database: Database, request: Request, account: str, actor: str = ""
) -> tuple[Sequence[pb.AuditEntry], str]:
    """Return a page of entries and the token of the next one. Empty names select all."""
    names = ("ListAuditEntries", account, actor, type(request).__module__)
    page = Page.of(request.page_size, request.page_token, *names)
    before = NEWEST if page.after == START else page.after
    found = await database.read(list_entries, page.limit, before, account, actor)
    return page.cut(found, map(_message, found), lambda entry: (entry.created_ms, entry.id))


def hide_from_tenants(entry: pb.AuditEntry) -> None:
    """Remove what only operators see: the name of an operator, and the markup of the account."""
    if entry.actor_type == pb.ACTOR_TYPE_OPERATOR:
        entry.actor = ""
    entry.before_json = _without_markup(entry.before_json)
    entry.after_json = _without_markup(entry.after_json)


def _without_markup(state: str) -> str:
    if _MARKUP not in state:
        return state
    fields = msgspec.json.decode(state, type=dict[str, object])
    fields.pop(_MARKUP, None)
    return msgspec.json.encode(fields).decode()


def _message(entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        entry_id=entry.id,
        create_time=timestamp(entry.created_ms),
        actor_type=ACTOR_TYPES[entry.actor_type],
        actor=entry.actor,
        account=entry.account,
        method=entry.method,
        resource=entry.resource,
        before_json=entry.before_text,
        after_json=entry.after_text,
        request_id=entry.request_id,
    )
