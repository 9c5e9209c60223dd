"""Rules of the table `[client_certificates]`.

A row whose method does not exist would refuse the clients that it names, so it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.embeddings.v1 import embedding_service_pb2 as embeddings
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.operations.v1 import operations_service_pb2 as operations
from pomogator.tenants.v1 import tenant_service_pb2 as tenants
from pomogator.usage.v1 import usage_service_pb2 as usage

from services.config.rules import hint

EVERYTHING = "*"

FILES = (accounts, audit, keys, ledger, calls, chat, embeddings, models, operations, tenants, usage)
"""Contracts with methods that rows may name."""

METHODS = frozenset(
    f"{service.full_name}/{method}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods_by_name
)
PATTERNS = frozenset(
    {EVERYTHING, *METHODS, *(f"{method.partition('/')[0]}/*" for method in METHODS)}
)
"""Methods and groups of methods that rows may name."""

_NAME = re.compile(r"[!-)+-~]+")
"""Printable ASCII without space and asterisk."""


def problems(table: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield each problem of the table as `key: reason`."""
    for pattern, names in table.items():
        where = f"client_certificates.{pattern!r}"
        if pattern not in PATTERNS:
            yield f"{where}: is not a method or `Service/*` of ours{hint(pattern, PATTERNS)}"
        if not names:
            yield f"{where}: has no names; leave the row out"
        for name in names:
            if not _NAME.fullmatch(name):
                yield f"{where}: {name!r} is not a name; names are compared whole, without *"
