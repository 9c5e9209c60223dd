"""Rules for changes that tenants make to keys: no key gets more than the key that changes it.

Restrictions are `models`, the expiry and the limits. A key with limits of its own grants nothing:
each further key would have limits of the same size, and together they would exceed them. That its
keys inherit its limits would not help: only meters and a budget that all of them share would, which
are those of an account.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from services.accounts.key_messages import LIMITS
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.keys import KeyScope, StoredKey

LIMIT_FIELDS = tuple(ours for ours, _ in LIMITS.values())
RESTRICTIONS = ("models", "expire_ms", *LIMIT_FIELDS)
"""Fields of `KeyScope` that restrict a key. Its other fields choose forms of answers."""

UNRESTRICTED: tuple[object, ...] = (None, frozenset())

NOTHING = KeyScope(models=frozenset({""}), expire_ms=0)
"""Scope of a key that can do nothing, against which all of a new key is more."""


def is_limited(scope: KeyScope) -> bool:
    """Return whether a key has limits of its own."""
    return any(getattr(scope, name) is not None for name in LIMIT_FIELDS)


def is_within(scope: KeyScope, other: KeyScope) -> bool:
    """Return whether a key with `scope` has nothing that a key with `other` lacks."""
    if scope.administers_account and not other.administers_account:
        return False
    return all(_within(getattr(scope, name), getattr(other, name)) for name in RESTRICTIONS)


def new_scope(wanted: KeyScope, caller: KeyScope) -> KeyScope:
    """Return the scope of a new key. What `wanted` does not restrict is restricted as in `caller`.

    Raise Failure PERMISSION_DENIED if it would have more than the caller's key.
    """
    if is_limited(caller):
        raise denied(
            "Your key has limits of its own, so it cannot make keys: each would add to them."
        )
    return changed_scope(wanted, NOTHING, caller)


def changed_scope(wanted: KeyScope, before: KeyScope, caller: KeyScope) -> KeyScope:
    """Return the scope of a key after a change. Restrictions may stay or become narrower.

    A restriction that is cleared becomes the caller's. Raise Failure PERMISSION_DENIED if the key
    would have more than before and than the caller's key.
    """
    grants = not is_limited(caller)
    changes: dict[str, Any] = {}
    for name in RESTRICTIONS:
        value, former, own = (getattr(scope, name) for scope in (wanted, before, caller))
        if value == former:
            continue
        if value in UNRESTRICTED:
            changes[name] = value = own
        if not (_within(value, former) or (grants and _within(value, own))):
            raise denied(f"The key would have more than yours: {_field(name)}.")
    return replace(wanted, **changes)


def refuse_rotation(key: StoredKey, caller: StoredKey) -> None:
    """Raise Failure PERMISSION_DENIED if `key` has more than `caller`, who would get its secret."""
    if key.id == caller.id:
        return
    if is_limited(caller.scope):
        raise denied("Your key has limits of its own, so it cannot take over another key.")
    if not is_within(key.scope, caller.scope):
        raise denied("The key has more than yours, so it cannot give it a new secret.")


def denied(message: str) -> Failure:
    """Return the failure for what a key may not do."""
    return Failure(ErrorReason.PERMISSION_DENIED, message)


def _within(value: Any, bound: Any) -> bool:
    """Return whether a restriction is at least as narrow as another one."""
    if bound in UNRESTRICTED:
        return True
    if value in UNRESTRICTED:
        return False
    return bool(value <= bound)  # Of models: whether they are a subset.


def _field(name: str) -> str:
    names = {ours: theirs for theirs, (ours, _) in LIMITS.items()}
    return {"expire_ms": "expire_time", **names}.get(name, name)
