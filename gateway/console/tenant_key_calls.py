"""Tenant's key calls: requests of the console about the keys of a tenant's account."""

from __future__ import annotations

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.tenants.v1 import tenant_service_pb2 as pb
from pomogator.tenants.v1.tenant_service_pb2_grpc import TenantServiceStub

from gateway.console.askers import TenantAsker, ask
from gateway.console.key_terms import KeyTerms, changed_fields, to_scope

PAGE_SIZE = 100


class TenantKeyCalls:
    """Calls with a key that administers its account. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._tenants = TenantServiceStub(channel)

    async def keys(self, asker: TenantAsker, token: str = "") -> pb.ListKeysResponse:
        """Return a page of the account's keys."""
        request = pb.ListKeysRequest(page_size=PAGE_SIZE, page_token=token)
        return await ask(self._tenants.ListKeys, request, asker)

    async def create_key(
        self, asker: TenantAsker, terms: KeyTerms, creation_id: str
    ) -> pb.CreateKeyResponse:
        """Create a key once for each `creation_id`. The secret is in the first answer alone."""
        request = pb.CreateKeyRequest(
            display_name=terms.display_name, scope=to_scope(terms), request_id=creation_id
        )
        return await ask(self._tenants.CreateKey, request, asker)

    async def change_key(self, asker: TenantAsker, key_id: str, terms: KeyTerms) -> None:
        """Change name and terms of a key."""
        key = keys_pb.Key(key_id=key_id, display_name=terms.display_name, scope=to_scope(terms))
        mask = FieldMask(paths=changed_fields(terms))
        request = pb.UpdateKeyRequest(key=key, update_mask=mask)
        await ask(self._tenants.UpdateKey, request, asker)

    async def rotate_key(self, asker: TenantAsker, key_id: str, overlap_s: int) -> str:
        """Give a key a new secret, which is returned."""
        request = pb.RotateKeyRequest(key_id=key_id)
        request.overlap.FromSeconds(overlap_s)
        return (await ask(self._tenants.RotateKey, request, asker)).secret

    async def revoke_key(self, asker: TenantAsker, key_id: str) -> None:
        """Revoke a key."""
        request = pb.RevokeKeyRequest(key_id=key_id)
        await ask(self._tenants.RevokeKey, request, asker)
