"""TenantService, for keys that administer their account. The key alone determines the account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.tenants.v1 import tenant_service_pb2 as pb
from pomogator.tenants.v1 import tenant_service_pb2_grpc as pb_grpc

from services.accounts.audit_servicer import entries_page, hide_from_tenants
from services.accounts.audit_trail import audited, key_origin
from services.accounts.key_changes import KeyChange
from services.accounts.key_maker import KeyMaker
from services.accounts.key_messages import (
    key_to_proto,
    refuse_past_expiry,
    scope_from_proto,
    valid_display_name,
)
from services.accounts.key_reports import KeyReports, key_usage
from services.accounts.key_requests import GONE, KEY_ID, key_request, overlap_s
from services.accounts.key_views import view_of_own_key
from services.accounts.own_keys import (
    NOT_ADMINISTERING,
    OwnKey,
    create_own,
    revoke_own,
    rotate_own,
    update_own,
)
from services.accounts.proto_fields import not_found
from services.accounts.tenant_policy import denied
from services.admission.keyring import Caller, Keyring
from services.clock import Clock
from services.rpc.call_context import Context, metadata_of
from services.rpc.paging import Page
from services.storage.base import Database, Transaction
from services.storage.keys import KeyRequest, StoredKey, key_by_id, list_keys

T = TypeVar("T")

UNKNOWN = "There is no key with this ID."


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantServicer(pb_grpc.TenantServiceServicer):
    """Administers the keys of the caller's account."""

    keyring: Keyring
    database: Database
    maker: KeyMaker
    reports: KeyReports
    clock: Clock
    keys_max: int
    """Most valid keys of an account that its tenant may have made."""
    audit_keep_ms: int
    """Retention of entries of the audit log. 0: no limit."""

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        """Create a key with no more than the caller has."""
        own = await self._own(context)
        name = valid_display_name("display_name", request.display_name)
        scope = scope_from_proto(request.scope)
        refuse_past_expiry("scope.expire_time", scope, own.now_ms)
        draft, secret = self.maker.draft(own.account, name, scope)
        once = _request_of(own.account, request)
        key = await self._change(
            own, "CreateKey", draft.id, partial(create_own, own, draft, once, self.keys_max)
        )
        made = key.id == draft.id
        return pb.CreateKeyResponse(key=key_to_proto(key), secret=secret if made else "")

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """List the keys of the account, oldest first."""
        account = (await self._caller(context)).account
        page = Page.of(request.page_size, request.page_token, "ListOwnKeys", account)
        found = await self.database.read(list_keys, page.limit, account, page.after)
        shown, token = page.cut(
            found, map(key_to_proto, found), lambda each: (each.created_ms, each.id)
        )
        return pb.ListKeysResponse(keys=shown, next_page_token=token)

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        """Return a key of the account."""
        caller = await self._caller(context)
        return pb.GetKeyResponse(key=key_to_proto(await self._read(caller, request.key_id)))

    async def GetKeyUsage(
        self, request: pb.GetKeyUsageRequest, context: Context
    ) -> pb.GetKeyUsageResponse:
        """Return limits and usage of a key of the account."""
        caller = await self._caller(context)
        await self._read(caller, request.key_id)
        found = await self.reports.of(request.key_id)
        if found is None:
            raise not_found("key_id", UNKNOWN)
        return pb.GetKeyUsageResponse(key_usage=key_usage(found))

    async def UpdateKey(
        self, request: pb.UpdateKeyRequest, context: Context
    ) -> pb.UpdateKeyResponse:
        """Change name, permissions and limits of a key. Its secret stays."""
        own = await self._own(context, request.key.key_id, request.key.etag)
        same = keys_pb.UpdateKeyRequest(key=request.key, update_mask=request.update_mask)
        change = KeyChange.of(same, own.now_ms)
        update = partial(update_own, own, change, self.keys_max)
        key = await self._change(own, "UpdateKey", own.key_id, update)
        return pb.UpdateKeyResponse(key=_found(key, "key.key_id", GONE))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.RotateKeyResponse:
        """Replace the secret of a key. The former one stays valid for the overlap."""
        own = await self._own(context, request.key_id, request.etag)
        new, secret = self.maker.new_secret(own.key_id, overlap_s(request.overlap))
        key = await self._change(own, "RotateKey", own.key_id, partial(rotate_own, own, new))
        return pb.RotateKeyResponse(key=_found(key, "key_id", GONE), secret=secret)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        """Revoke a key in all processes at once."""
        own = await self._own(context, request.key_id, request.etag)
        key = await self._change(own, "RevokeKey", own.key_id, partial(revoke_own, own))
        return pb.RevokeKeyResponse(key=_found(key, "key_id", UNKNOWN))

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        """List the changes to the account and its keys, as tenants may see them."""
        account = (await self._caller(context)).account
        entries, token = await entries_page(self.database, request, account)
        for entry in entries:
            hide_from_tenants(entry)
        return pb.ListAuditEntriesResponse(audit_entries=entries, next_page_token=token)

    async def _change(
        self, own: OwnKey, method: str, key_id: str, change: Callable[[], Transaction[T]]
    ) -> T:
        """Make a change, with its entry in the audit log."""
        method = f"TenantService.{method}"
        origin = key_origin(own.caller_id, method, own.now_ms, self.audit_keep_ms)
        view = view_of_own_key(key_id, own.account)
        return await self.database.write(audited, origin, view, change)

    async def _caller(self, context: Context) -> Caller:
        caller = await self.keyring.authenticate(metadata_of(context).get("authorization"))
        if not caller.scope.administers_account:
            raise denied(NOT_ADMINISTERING)
        return caller

    async def _own(self, context: Context, key_id: str = "", etag: str = "") -> OwnKey:
        caller = await self._caller(context)
        return OwnKey(
            account=caller.account,
            caller_id=caller.key_id,
            key_id=key_id if KEY_ID.fullmatch(key_id) else "",
            etag=etag,
            now_ms=round(self.clock.time() * 1000),
        )

    async def _read(self, caller: Caller, key_id: str) -> StoredKey:
        key = None
        if KEY_ID.fullmatch(key_id):
            key = await self.database.read(key_by_id, key_id)
        if key is None or key.account != caller.account:
            raise not_found("key_id", UNKNOWN)
        return key


def _found(key: StoredKey | None, param: str, message: str) -> keys_pb.Key:
    if key is None:
        raise not_found(param, message)
    return key_to_proto(key)


def _request_of(account: str, request: pb.CreateKeyRequest) -> KeyRequest | None:
    """Return the ID of a request that may be repeated, for this account alone.

    Operators' request IDs have no space, so no account can use or guess one of them.
    """
    once = key_request(request)
    return once and KeyRequest(id=f"{account} {once.id}", fingerprint=once.fingerprint)
