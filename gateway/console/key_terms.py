"""Key terms: name, permissions and limits of a key, as a form has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """Name, permissions and limits of a key in a form."""

    display_name: str
    models: Sequence[str]
    """Empty: all models."""
    expires: datetime | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_calls: int | None
    monthly_nano_usd: int | None
    administers_account: bool
    """Whether the key may administer the keys of its account."""
    keeps_expiry: bool
    """Whether a change leaves the expiry time as it is, of which the form has the day alone."""

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """Read the terms. Raise ApiError where a field is wrong."""
        return cls(
            display_name=fields.text("display_name"),
            models=fields.words("models"),
            expires=fields.day("expires"),
            requests_per_minute=fields.size("requests_per_minute"),
            tokens_per_minute=fields.size("tokens_per_minute"),
            concurrent_calls=fields.size("concurrent_calls"),
            monthly_nano_usd=fields.nano_usd("monthly_usd"),
            administers_account=fields.checked("administers_account"),
            keeps_expiry=fields.text("expires") == fields.text("expires_before"),
        )


def to_scope(terms: KeyTerms) -> pb.KeyScope:
    """Return the scope with these terms."""
    scope = pb.KeyScope(
        models=terms.models,
        requests_per_minute=terms.requests_per_minute,
        tokens_per_minute=terms.tokens_per_minute,
        concurrent_call_count=terms.concurrent_calls,
        monthly_nano_usd=terms.monthly_nano_usd,
        administers_account=terms.administers_account,
    )
    if terms.expires is not None:
        expires = Timestamp()
        expires.FromDatetime(terms.expires)
        scope.expire_time.CopyFrom(expires)
    return scope


def changed_fields(terms: KeyTerms) -> Sequence[str]:
    """Return the fields of a key that a form changes."""
    return [path for path in _PATHS if path != _EXPIRY or not terms.keeps_expiry]


def overlap_s(fields: Fields) -> int:
    """Return for how long former secrets stay valid. The form has hours."""
    return fields.seconds("overlap_hours") or 0
