"""KeyService, for operators. `FailureBorder` turns failures into statuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pomogator.accounts.v1 import key_service_pb2 as pb
from pomogator.accounts.v1 import key_service_pb2_grpc as pb_grpc

from services.accounts.audit_trail import audited, operator_origin
from services.accounts.key_changes import KeyChange
from services.accounts.key_maker import KeyMaker, insert_new, insert_once
from services.accounts.key_messages import (
    key_to_proto,
    refuse_past_expiry,
    scope_from_proto,
    valid_display_name,
)
from services.accounts.key_requests import GONE, KEY_ID, key_request, overlap_s
from services.accounts.key_versions import locked_key
from services.accounts.key_views import view_of_key
from services.accounts.proto_fields import account_name, not_found
from services.clock import Clock
from services.rpc.call_context import Context
from services.rpc.paging import Page
from services.storage.base import Database, Transaction
from services.storage.keys import (
    NewSecret,
    StoredKey,
    list_keys,
    revoke_key,
    rotate_key,
    update_key,
)
from services.storage.pepper import Pepper

T = TypeVar("T")


class KeyServicer(pb_grpc.KeyServiceServicer):
    """Creates, lists, changes, rotates and revokes keys."""

    def __init__(
        self, database: Database, pepper: Pepper, clock: Clock, audit_keep_ms: int = 0
    ) -> None:
        """`audit_keep_ms` is the retention of entries of the audit log; 0: no limit."""
        self._keep_ms = audit_keep_ms
        self._database = database
        self._maker = KeyMaker(database, pepper, clock)
        self._clock = clock

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        """Create a key, and its account if it does not exist."""
        name = account_name(request.account)
        display_name = valid_display_name("display_name", request.display_name)
        scope = scope_from_proto(request.scope)
        refuse_past_expiry("scope.expire_time", scope, self._now_ms())
        once = key_request(request)
        draft, secret = self._maker.draft(name, display_name, scope)
        insert = partial(insert_once, draft, once) if once else partial(insert_new, draft)
        key = await self._change(context, "CreateKey", draft.id, insert)
        made = key.id == draft.id
        return pb.CreateKeyResponse(key=key_to_proto(key), secret=secret if made else "")

    async def ListKeys(self, request: pb.ListKeysRequest, _context: Context) -> pb.ListKeysResponse:
        """List keys, oldest first."""
        account = account_name(request.account) if request.account else ""
        page = Page.of(request.page_size, request.page_token, "ListKeys", account)
        found = await self._database.read(list_keys, page.limit, account, page.after)
        shown, token = page.cut(
            found, map(key_to_proto, found), lambda each: (each.created_ms, each.id)
        )
        return pb.ListKeysResponse(keys=shown, next_page_token=token)

    async def UpdateKey(
        self, request: pb.UpdateKeyRequest, context: Context
    ) -> pb.UpdateKeyResponse:
        """Change name, permissions and limits of a key. Its secret stays."""
        change = KeyChange.of(request, self._now_ms())
        key = None
        if KEY_ID.fullmatch(request.key.key_id):
            update = partial(_update, request.key, change)
            key = await self._change(context, "UpdateKey", request.key.key_id, update)
        if key is None:
            raise not_found("key.key_id", GONE)
        return pb.UpdateKeyResponse(key=key_to_proto(key))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.RotateKeyResponse:
        """Replace the secret of a key. The former one stays valid for the overlap."""
        new, secret = self._maker.new_secret(request.key_id, overlap_s(request.overlap))
        key = None
        if KEY_ID.fullmatch(request.key_id):
            rotate = partial(_rotate, new, request.etag, self._now_ms())
            key = await self._change(context, "RotateKey", request.key_id, rotate)
        if key is None:
            raise not_found("key_id", GONE)
        return pb.RotateKeyResponse(key=key_to_proto(key), secret=secret)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        """Revoke a key in all processes at once."""
        key = None
        if KEY_ID.fullmatch(request.key_id):
            revoke = partial(_revoke, request.key_id, request.etag, self._now_ms())
            key = await self._change(context, "RevokeKey", request.key_id, revoke)
        if key is None:
            raise not_found("key_id", "There is no key with this ID.")
        return pb.RevokeKeyResponse(key=key_to_proto(key))

    async def _change(
        self, context: Context, method: str, key_id: str, change: Callable[[], Transaction[T]]
    ) -> T:
        """Make a change, with its entry in the audit log."""
        origin = operator_origin(context, f"KeyService.{method}", self._now_ms(), self._keep_ms)
        return await self._database.write(audited, origin, view_of_key(key_id), change)

    def _now_ms(self) -> int:
        return round(self._clock.time() * 1000)


def _update(message: pb.Key, change: KeyChange) -> Transaction[StoredKey | None]:
    yield from locked_key(message.key_id, message.etag, "key.etag")
    return (yield from update_key(message.key_id, change.apply))


def _rotate(secret: NewSecret, etag: str, now_ms: int) -> Transaction[StoredKey | None]:
    yield from locked_key(secret.key_id, etag)
    return (yield from rotate_key(secret, now_ms))


def _revoke(key_id: str, etag: str, now_ms: int) -> Transaction[StoredKey | None]:
    yield from locked_key(key_id, etag)
    return (yield from revoke_key(key_id, now_ms))
