"""Audit calls: requests of the console for changes of accounts and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import grpc
from pomogator.accounts.v1 import audit_service_pb2 as pb
from pomogator.accounts.v1.audit_service_pb2_grpc import AuditServiceStub
from pomogator.tenants.v1 import tenant_service_pb2 as tenants_pb
from pomogator.tenants.v1.tenant_service_pb2_grpc import TenantServiceStub

from gateway.console.askers import OperatorAsker, TenantAsker, ask

PAGE_SIZE = 100


class AuditPage(NamedTuple):
    """A page of changes, newest first."""

    entries: Sequence[pb.AuditEntry]
    next_token: str


async def changes_of_account(
    channel: grpc.aio.Channel, asker: TenantAsker, token: str
) -> AuditPage:
    """Return a page of the changes to the account of a key. Raise ApiError."""
    request = tenants_pb.ListAuditEntriesRequest(page_size=PAGE_SIZE, page_token=token)
    stub = TenantServiceStub(channel)
    answer = await ask(stub.ListAuditEntries, request, asker)
    return AuditPage(answer.audit_entries, answer.next_page_token)


async def all_changes(
    channel: grpc.aio.Channel, asker: OperatorAsker, token: str, account: str, actor: str
) -> AuditPage:
    """Return a page of the changes to an account or to all, by one actor or by all."""
    request = pb.ListAuditEntriesRequest(
        page_size=PAGE_SIZE, page_token=token, account=account, actor=actor
    )
    stub = AuditServiceStub(channel)
    answer = await ask(stub.ListAuditEntries, request, asker)
    return AuditPage(answer.audit_entries, answer.next_page_token)
