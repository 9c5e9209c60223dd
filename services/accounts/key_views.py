"""States of keys and accounts, as the audit log shows them."""

from __future__ import annotations

from services.accounts.account_messages import account_to_proto
from services.accounts.audit_trail import View, Viewed, json_text
from services.accounts.key_messages import key_to_proto
from services.accounts.key_versions import locked_key
from services.storage.accounts import account_by_name, lock_account
from services.storage.base import Transaction
from services.storage.keys import key_by_id


def view_of_key(key_id: str) -> View:
    """Return the view of a key, which keeps it from changes by others."""

    def view() -> Transaction[Viewed]:
        name = f"keys/{key_id}"
        key = yield from locked_key(key_id)
        if key is None:
            return Viewed(name)
        return Viewed(name, key.account, json_text(key_to_proto(key)))

    return view


def view_of_own_key(key_id: str, account: str) -> View:
    """Return the view of a key of the account. Keys of others are not locked, and do not exist."""

    def view() -> Transaction[Viewed]:
        yield from lock_account(account)
        key = yield from key_by_id(key_id)
        text = json_text(key_to_proto(key)) if key is not None and key.account == account else ""
        return Viewed(f"keys/{key_id}", account, text)

    return view


def view_of_account(name: str) -> View:
    """Return the view of an account, which keeps it from changes by others."""

    def view() -> Transaction[Viewed]:
        yield from lock_account(name)
        account = yield from account_by_name(name)
        text = "" if account is None else json_text(account_to_proto(account))
        return Viewed(f"accounts/{name}", name, text)

    return view
