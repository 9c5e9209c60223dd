"""Tenant's key calls: what the console asks the service about the keys of a tenant's account."""

from __future__ import annotations

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.tenants.v1 import tenant_service_pb2 as pb
from pomogator.tenants.v1.tenant_service_pb2_grpc import TenantServiceStub

from gateway.console.account_calls import TIMEOUT_S, Caller, answered
from gateway.console.key_terms import KeyTerms, changed_fields, to_scope

PAGE_SIZE = 100


class TenantKeyCalls:
    """Calls with a key that administers its account. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._tenants = TenantServiceStub(channel)

    async def keys(self, caller: Caller, token: str = "") -> pb.ListKeysResponse:
        """Return a page of the account's keys."""
        request = pb.ListKeysRequest(page_size=PAGE_SIZE, page_token=token)
        call = self._tenants.ListKeys(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        return await answered(call, caller.request_id)

    async def create_key(
        self, caller: Caller, terms: KeyTerms, creation_id: str
    ) -> pb.CreateKeyResponse:
        """Create a key once for each `creation_id`. The secret is in the first answer alone."""
        request = pb.CreateKeyRequest(
            display_name=terms.display_name, scope=to_scope(terms), request_id=creation_id
        )
        call = self._tenants.CreateKey(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        return await answered(call, caller.request_id)

    async def change_key(self, caller: Caller, key_id: str, terms: KeyTerms) -> None:
        """Change name and terms of a key."""
        key = keys_pb.Key(key_id=key_id, display_name=terms.display_name, scope=to_scope(terms))
        mask = FieldMask(paths=changed_fields(terms))
        request = pb.UpdateKeyRequest(key=key, update_mask=mask)
        call = self._tenants.UpdateKey(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        await answered(call, caller.request_id)

    async def rotate_key(self, caller: Caller, key_id: str, overlap_s: int) -> str:
        """Give a key a new secret, which is returned."""
        request = pb.RotateKeyRequest(key_id=key_id)
        request.overlap.FromSeconds(overlap_s)
        call = self._tenants.RotateKey(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        return (await answered(call, caller.request_id)).secret

    async def revoke_key(self, caller: Caller, key_id: str) -> None:
        """Revoke a key."""
        request = pb.RevokeKeyRequest(key_id=key_id)
        call = self._tenants.RevokeKey(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        await answered(call, caller.request_id)
