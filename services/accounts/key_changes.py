"""Changes of a key: the fields of an update mask (https://google.aip.dev/134)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace
from pomogator.accounts.v1 import key_service_pb2 as pb

from services.accounts.key_messages import (
    LIMITS,
    SWITCHES,
    refuse_past_expiry,
    scope_from_proto,
    valid_display_name,
)
from services.errors import invalid
from services.storage.keys import KeyScope

NAME = "display_name"
SCOPE = "scope"
SCOPE_FIELDS: Mapping[str, str] = {
    "models": "models",
    "expire_time": "expire_ms",
    **dict(zip(SWITCHES, SWITCHES, strict=True)),
    **{theirs: ours for theirs, (ours, _) in LIMITS.items()},
}
"""Fields of the proto's `KeyScope`, with their names in the stored one."""

VERSION = "etag"
"""Condition of the change. A mask that a body implies names it, too."""

PATHS = (NAME, SCOPE, *(f"{SCOPE}.{field}" for field in SCOPE_FIELDS))
"""Paths that a mask may have."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Fields of a key that change, and their new values."""

    paths: frozenset[str]
    """Paths from `PATHS`."""
    display_name: str
    """New name."""
    scope: KeyScope
    """New permissions and limits."""

    @classmethod
    def of(cls, request: pb.UpdateKeyRequest, now_ms: int) -> KeyChange:
        """Return the change that a request asks for. Raise Failure INVALID_FIELD."""
        paths = frozenset(_expanded(list(request.update_mask.paths) or list(_given(request.key))))
        if not paths:
            raise invalid("update_mask", "update_mask must name the fields to change")
        name = valid_display_name("key.display_name", request.key.display_name)
        scope = scope_from_proto(request.key.scope, "key.scope")
        if {SCOPE, f"{SCOPE}.expire_time"} & paths:
            refuse_past_expiry("key.scope.expire_time", scope, now_ms)
        return cls(paths, name, scope)

    def apply(self, display_name: str, scope: KeyScope) -> tuple[str, KeyScope]:
        """Return name and scope after the change."""
        name = self.display_name if NAME in self.paths else display_name
        if SCOPE in self.paths:
            return name, self.scope
        changed = {
            ours: getattr(self.scope, ours)
            for theirs, ours in SCOPE_FIELDS.items()
            if f"{SCOPE}.{theirs}" in self.paths
        }
        return name, replace(scope, **changed)


def _given(key: pb.Key) -> Iterator[str]:
    """Yield the paths that a request without a mask implies: the fields that are set."""
    if key.display_name:
        yield NAME
    for field, _ in key.scope.ListFields():
        yield f"{SCOPE}.{field.name}"


def _expanded(paths: list[str]) -> Iterator[str]:
    if paths == ["*"]:
        paths = [NAME, SCOPE]
    for path in paths:
        if path == VERSION:
            continue
        if path not in PATHS:
            raise invalid("update_mask", f"update_mask may have: {', '.join(PATHS)}")
        yield path
