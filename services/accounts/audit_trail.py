"""Audit trail: each change writes its entry in the same transaction.

await database.write(audited, origin, view_of_key(key_id), partial(revoke_key, key_id, now_ms))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from services.common.call_names import OPERATOR_HEADER
from services.rpc.call_context import Context, current_request_id, metadata_of
from services.rpc.client_authorizer import certificate_names
from services.storage.audit_entries import (
    KEY,
    OPERATOR,
    SYSTEM,
    AuditEntry,
    insert_entry,
    new_entry_id,
)
from services.storage.base import Transaction

T = TypeVar("T")

_ACTOR_CHARS_MAX = 64


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of a change."""

    actor_type: str
    """`operator`, `key` or `system`."""
    actor: str
    """Name of the operator, where it is known; ID of the key; cause of an act of the gateway."""
    method: str
    """Method that makes the change."""
    request_id: str = ""
    """Request ID. Empty: no request asked for the change."""
    now_ms: int
    """Time of the change."""
    keep_ms: int = 0
    """Retention of entries. 0: no limit."""


class Viewed(NamedTuple):
    """State of what changes, as the log shows it."""

    resource: str
    """Its name."""
    account: str = ""
    """Its account. Empty: it has none."""
    text: str = ""
    """JSON without secrets. Empty: it does not exist."""


View = Callable[[], Transaction[Viewed]]


def operator_origin(context: Context, method: str, now_ms: int, keep_ms: int = 0) -> Origin:
    """Return the origin of a call on the operators' listener."""
    claimed = metadata_of(context).get(OPERATOR_HEADER, "")
    name = min(certificate_names(context), default=claimed)
    return Origin(
        actor_type=OPERATOR,
        actor=name[:_ACTOR_CHARS_MAX],
        method=method,
        request_id=current_request_id(),
        now_ms=now_ms,
        keep_ms=keep_ms,
    )


def key_origin(key_id: str, method: str, now_ms: int, keep_ms: int = 0) -> Origin:
    """Return the origin of a call with a key."""
    return Origin(
        actor_type=KEY,
        actor=key_id,
        method=method,
        request_id=current_request_id(),
        now_ms=now_ms,
        keep_ms=keep_ms,
    )


def system_origin(cause: str, method: str, now_ms: int, keep_ms: int = 0) -> Origin:
    """Return the origin of a change that the gateway makes itself, because of `cause`."""
    return Origin(actor_type=SYSTEM, actor=cause, method=method, now_ms=now_ms, keep_ms=keep_ms)


def audited(origin: Origin, view: View, change: Callable[[], Transaction[T]]) -> Transaction[T]:
    """Make a change, and write its entry if the view differs before and after it."""
    before = yield from view()
    result = yield from change()
    after = yield from view()
    if before != after:
        yield from record(origin, before, after)
    return result


def record(origin: Origin, before: Viewed, after: Viewed) -> Transaction[None]:
    """Write the entry of a change."""
    yield from insert_entry(_entry(origin, before, after), origin.keep_ms)


def json_text(message: Message) -> str:
    """Return a message as JSON in one line."""
    return MessageToJson(message, preserving_proto_field_name=True, indent=None)


def _entry(origin: Origin, before: Viewed, after: Viewed) -> AuditEntry:
    return AuditEntry(
        id=new_entry_id(),
        created_ms=origin.now_ms,
        actor_type=origin.actor_type,
        actor=origin.actor,
        account=after.account or before.account,
        method=origin.method,
        resource=after.resource,
        before_text=before.text,
        after_text=after.text,
        request_id=origin.request_id,
    )
