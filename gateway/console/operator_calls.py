"""Operator calls: requests of the console about accounts, keys and the ledger, for an operator."""

from __future__ import annotations

from datetime import datetime

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import account_service_pb2 as accounts_pb
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2 as ledger_pb
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from gateway.console.askers import OperatorAsker, ask
from gateway.console.key_terms import KeyTerms, changed_fields, to_scope

PAGE_SIZE = 100
VERIFY_TIMEOUT_S = 120.0
"""Verification reads the whole ledger."""


class OperatorCalls:
    """Calls over a channel to the operators' services, which trusts its holder.

    All raise ApiError.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._accounts = accounts_grpc.AccountServiceStub(channel)
        self._keys = keys_grpc.KeyServiceStub(channel)
        self._ledger = ledger_grpc.LedgerServiceStub(channel)

    async def accounts(
        self, asker: OperatorAsker, token: str = ""
    ) -> accounts_pb.ListAccountsResponse:
        """Return a page of accounts."""
        request = accounts_pb.ListAccountsRequest(page_size=PAGE_SIZE, page_token=token)
        return await ask(self._accounts.ListAccounts, request, asker)

    async def account(self, asker: OperatorAsker, name: str) -> accounts_pb.Account:
        """Return an account."""
        request = accounts_pb.GetAccountRequest(account=name)
        return (await ask(self._accounts.GetAccount, request, asker)).account

    async def open_account(
        self, asker: OperatorAsker, name: str, *, credit_nano_usd: int, unlimited: bool
    ) -> None:
        """Open an account."""
        request = accounts_pb.CreateAccountRequest(
            account=name, credit_nano_usd=credit_nano_usd, unlimited=unlimited
        )
        await ask(self._accounts.CreateAccount, request, asker)

    async def credit(self, asker: OperatorAsker, name: str, nano_usd: int, credit_id: str) -> None:
        """Credit an account once for each `credit_id`."""
        request = accounts_pb.CreditAccountRequest(
            account=name, amount_nano_usd=nano_usd, request_id=credit_id
        )
        await ask(self._accounts.CreditAccount, request, asker)

    async def set_markup(self, asker: OperatorAsker, name: str, basis_points: int) -> None:
        """Change the markup of an account."""
        request = accounts_pb.UpdateAccountRequest(
            account=accounts_pb.Account(account=name, markup_basis_points=basis_points),
            update_mask=FieldMask(paths=["markup_basis_points"]),
        )
        await ask(self._accounts.UpdateAccount, request, asker)

    async def keys(
        self, asker: OperatorAsker, account: str, token: str = ""
    ) -> keys_pb.ListKeysResponse:
        """Return a page of an account's keys."""
        request = keys_pb.ListKeysRequest(account=account, page_size=PAGE_SIZE, page_token=token)
        return await ask(self._keys.ListKeys, request, asker)

    async def create_key(
        self, asker: OperatorAsker, account: str, terms: KeyTerms, creation_id: str
    ) -> keys_pb.CreateKeyResponse:
        """Create a key once for each `creation_id`. The secret is in the first answer alone."""
        request = keys_pb.CreateKeyRequest(
            account=account,
            display_name=terms.display_name,
            scope=to_scope(terms),
            request_id=creation_id,
        )
        return await ask(self._keys.CreateKey, request, asker)

    async def change_key(self, asker: OperatorAsker, key_id: str, terms: KeyTerms) -> None:
        """Change name and terms of a key."""
        key = keys_pb.Key(key_id=key_id, display_name=terms.display_name, scope=to_scope(terms))
        mask = FieldMask(paths=changed_fields(terms))
        request = keys_pb.UpdateKeyRequest(key=key, update_mask=mask)
        await ask(self._keys.UpdateKey, request, asker)

    async def rotate_key(self, asker: OperatorAsker, key_id: str, overlap_s: int) -> str:
        """Give a key a new secret, which is returned."""
        request = keys_pb.RotateKeyRequest(key_id=key_id)
        request.overlap.FromSeconds(overlap_s)
        return (await ask(self._keys.RotateKey, request, asker)).secret

    async def revoke_key(self, asker: OperatorAsker, key_id: str) -> None:
        """Revoke a key."""
        request = keys_pb.RevokeKeyRequest(key_id=key_id)
        await ask(self._keys.RevokeKey, request, asker)

    async def usage(
        self, asker: OperatorAsker, account: str, since: datetime
    ) -> list[ledger_pb.ModelUsage]:
        """Return the usage of an account by model."""
        request = ledger_pb.ReportUsageRequest(account=account)
        request.start_time.FromDatetime(since)
        return list((await ask(self._ledger.ReportUsage, request, asker)).models)

    async def verify(self, asker: OperatorAsker) -> ledger_pb.VerifyLedgerResponse:
        """Verify the ledger."""
        request = ledger_pb.VerifyLedgerRequest()
        return await ask(self._ledger.VerifyLedger, request, asker, VERIFY_TIMEOUT_S)
