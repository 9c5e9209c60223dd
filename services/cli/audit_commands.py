"""Commands about the audit log: list."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from pomogator.accounts.v1 import audit_service_pb2 as pb

from services.cli.operator_client import operators
from services.cli.output import say_table, show_time

PAGE_SIZE = 1000


async def list_audit_entries(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the newest entries of the audit log, newest first."""
    request = pb.ListAuditEntriesRequest(account=arguments.account, actor=arguments.actor)
    entries: list[pb.AuditEntry] = []
    async with operators(arguments, env) as service:
        while len(entries) < arguments.limit:
            request.page_size = min(PAGE_SIZE, arguments.limit - len(entries))
            answer = await service.ask(service.audit.ListAuditEntries, request)
            entries += answer.audit_entries
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
    say_table(("TIME", "BY", "METHOD", "WHAT", "ACCOUNT", "BEFORE", "AFTER"), [*map(_row, entries)])


def _row(entry: pb.AuditEntry) -> tuple[str, ...]:
    kind = pb.ActorType.Name(entry.actor_type).removeprefix("ACTOR_TYPE_").lower()
    return (
        show_time(entry.create_time),
        f"{kind} {entry.actor}".rstrip(),
        entry.method,
        entry.resource,
        entry.account or "-",
        entry.before_json or "-",
        entry.after_json or "-",
    )
