"""Messages of keys, from and to the stored form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pomogator.accounts.v1 import key_service_pb2 as pb

from services.accounts.key_versions import etag_of
from services.accounts.proto_fields import in_range, milliseconds, stored_name, timestamp
from services.errors import invalid
from services.storage.keys import KeyScope, StoredKey

DISPLAY_NAME_MAX = 128
MODELS_BYTES_MAX = 16 * 1024
"""The most bytes of the models of a key. Lookups of the key, lists and audit entries have them."""

LIMITS: Mapping[str, tuple[str, int]] = {
    "requests_per_minute": ("rpm", 1),
    "tokens_per_minute": ("tpm", 1),
    "concurrent_call_count": ("concurrency", 1),
    "monthly_nano_usd": ("monthly_nano_usd", 0),
}
"""Limits of the proto, with their names in `KeyScope` and their minimum."""

SWITCHES = ("strict", "text_content", "thinking_names_hidden", "administers_account")
"""Settings that are on or off, by their names in both."""


def key_to_proto(key: StoredKey) -> pb.Key:
    """Convert a stored key to its message."""
    message = pb.Key(
        key_id=key.id,
        account=key.account,
        display_name=key.display_name,
        prefix=key.prefix,
        create_time=timestamp(key.created_ms),
        scope=scope_to_proto(key.scope),
        etag=etag_of(key),
    )
    if key.revoked_ms is not None:
        message.revoke_time.CopyFrom(timestamp(key.revoked_ms))
    return message


def scope_to_proto(scope: KeyScope) -> pb.KeyScope:
    """Convert a scope to its message."""
    return pb.KeyScope(
        models=sorted(scope.models),
        expire_time=None if scope.expire_ms is None else timestamp(scope.expire_ms),
        **{name: getattr(scope, name) for name in SWITCHES},
        requests_per_minute=scope.rpm,
        tokens_per_minute=scope.tpm,
        concurrent_call_count=scope.concurrency,
        monthly_nano_usd=scope.monthly_nano_usd,
    )


def scope_from_proto(message: pb.KeyScope, prefix: str = "scope") -> KeyScope:
    """Convert a message, the field `prefix`, to a scope. Raise Failure INVALID_FIELD."""
    given = {field.name for field, _ in message.ListFields()}
    values: dict[str, Any] = {
        ours: in_range(f"{prefix}.{theirs}", getattr(message, theirs), least)
        for theirs, (ours, least) in LIMITS.items()
        if theirs in given
    }
    if "expire_time" in given:
        values["expire_ms"] = milliseconds(f"{prefix}.expire_time", message.expire_time)
    values |= {name: getattr(message, name) for name in SWITCHES}
    return KeyScope(models=_models(f"{prefix}.models", message.models), **values)


def _models(param: str, names: Sequence[str]) -> frozenset[str]:
    if sum(len(name.encode()) for name in names) > MODELS_BYTES_MAX or "" in names:
        message = f"{param} must be names, none of them empty, of {MODELS_BYTES_MAX} bytes in all"
        raise invalid(param, message)
    return frozenset(stored_name(param, name) for name in names)


def valid_display_name(param: str, name: str) -> str:
    """Return a valid name of a key. Raise Failure INVALID_FIELD."""
    if len(name) > DISPLAY_NAME_MAX or not name.isprintable():
        raise invalid(param, f"{param} must be at most {DISPLAY_NAME_MAX} printable characters")
    return name


def refuse_past_expiry(param: str, scope: KeyScope, now_ms: int) -> None:
    """Raise Failure INVALID_FIELD for a scope that has expired already."""
    if scope.expire_ms is not None and scope.expire_ms <= now_ms:
        raise invalid(param, f"{param} must be in the future; to end a key, revoke it")
