"""Key terms: name, permissions and limits of a key, as a form has them."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import key_service_pb2 as pb

from gateway.console.form_fields import Fields

_EXPIRY = "scope.expire_time"
_PATHS = (
    "display_name",
    "scope.models",
    _EXPIRY,
    "scope.requests_per_minute",
    "scope.tokens_per_minute",
    "scope.concurrent_call_count",
    "scope.monthly_nano_usd",
    "scope.administers_account",
)
"""Fields of a key that a form has. A change leaves the others as they are."""


class KeyTerms(NamedTuple):
    """Name, permissions and limits of a key, as a form has them."""

    display_name: str
    scope: pb.KeyScope
    changed: FieldMask
    """Fields that a change changes. The form has the day alone of an expiry time, which stays."""

    @classmethod
    def of(cls, fields: Fields) -> KeyTerms:
        """Read the terms. Raise ApiError where a field is wrong."""
        scope = pb.KeyScope(
            models=fields.words("models"),
            requests_per_minute=fields.size("requests_per_minute"),
            tokens_per_minute=fields.size("tokens_per_minute"),
            concurrent_call_count=fields.size("concurrent_calls"),
            monthly_nano_usd=fields.nano_usd("monthly_usd"),
            administers_account=fields.checked("administers_account"),
        )
        if (expires := fields.day("expires")) is not None:
            scope.expire_time.FromDatetime(expires)
        keeps_expiry = fields.text("expires") == fields.text("expires_before")
        paths = [path for path in _PATHS if path != _EXPIRY or not keeps_expiry]
        return cls(fields.text("display_name"), scope, FieldMask(paths=paths))


def overlap_of(fields: Fields) -> Duration:
    """Return for how long former secrets stay valid. The form has hours."""
    return Duration(seconds=fields.seconds("overlap_hours") or 0)
