"""Messages of accounts, from the stored form."""

from __future__ import annotations

from pomogator.accounts.v1 import account_service_pb2 as pb

from services.accounts.proto_fields import not_found, timestamp
from services.storage.accounts import Account


def account_to_proto(account: Account) -> pb.Account:
    """Convert a stored account to its message."""
    return pb.Account(
        account=account.name,
        unlimited=account.unlimited,
        balance_nano_usd=account.posted,
        held_nano_usd=account.held,
        create_time=timestamp(account.created_ms),
        markup_basis_points=account.markup_bp,
    )


def found_account(account: Account | None) -> pb.Account:
    """Return the message of an account. Raise Failure NOT_FOUND if there is none."""
    if account is None:
        raise not_found("account", "There is no account with this name.")
    return account_to_proto(account)
