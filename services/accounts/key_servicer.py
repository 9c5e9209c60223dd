"""KeyService, for operators. `FailureBorder` turns failures into statuses."""

from __future__ import annotations

import hashlib
import re

from pomogator.accounts.v1 import key_service_pb2 as pb
from pomogator.accounts.v1 import key_service_pb2_grpc as pb_grpc

from services.accounts.key_changes import KeyChange
from services.accounts.key_maker import KeyMaker
from services.accounts.key_messages import (
    key_to_proto,
    refuse_past_expiry,
    scope_from_proto,
    valid_display_name,
)
from services.accounts.proto_fields import account_name, in_range, not_found, valid_request_id
from services.clock import Clock
from services.rpc.call_context import Context
from services.rpc.paging import START, Page
from services.storage.base import Database
from services.storage.keys import KeyRequest, list_keys, revoke_key, update_key
from services.storage.pepper import Pepper

KEY_ID = re.compile(r"[ -~]{1,64}")
GONE = "There is no key with this ID, or it was revoked."

OVERLAP_MAX_S = 90 * 24 * 3600
"""Maximum time that former secrets stay valid."""


class KeyServicer(pb_grpc.KeyServiceServicer):
    """Creates, lists, changes, rotates and revokes keys."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database = database
        self._maker = KeyMaker(database, pepper, clock)
        self._clock = clock

    async def CreateKey(
        self, request: pb.CreateKeyRequest, _context: Context
    ) -> pb.CreateKeyResponse:
        """Create a key, and its account if it does not exist."""
        name = account_name(request.account)
        display_name = valid_display_name("display_name", request.display_name)
        scope = scope_from_proto(request.scope)
        refuse_past_expiry("scope.expire_time", scope, self._now_ms())
        once = _key_request(request)
        if once is None:
            key, secret = await self._maker.make(name, display_name, scope)
        else:
            key, secret = await self._maker.make_once(name, display_name, scope, once)
        return pb.CreateKeyResponse(key=key_to_proto(key), secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, _context: Context) -> pb.ListKeysResponse:
        """List keys, oldest first."""
        account = account_name(request.account) if request.account else ""
        page = Page.of(request.page_size, request.page_token, "ListKeys", account)
        found = await self._database.read(list_keys, page.limit, account, page.after)
        shown = page.items(found)
        last = (shown[-1].created_ms, shown[-1].id) if shown else START
        return pb.ListKeysResponse(
            keys=[key_to_proto(key) for key in shown],
            next_page_token=page.next_token(found, last),
        )

    async def UpdateKey(
        self, request: pb.UpdateKeyRequest, _context: Context
    ) -> pb.UpdateKeyResponse:
        """Change name, permissions and limits of a key. Its secret stays."""
        change = KeyChange.of(request, self._now_ms())
        key = None
        if KEY_ID.fullmatch(request.key.key_id):
            key = await self._database.write(update_key, request.key.key_id, change.apply)
        if key is None:
            raise not_found("key.key_id", GONE)
        return pb.UpdateKeyResponse(key=key_to_proto(key))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, _context: Context
    ) -> pb.RotateKeyResponse:
        """Replace the secret of a key. The former one stays valid for the overlap."""
        overlap_ms = request.overlap.ToMilliseconds()
        in_range("overlap", overlap_ms, 0, OVERLAP_MAX_S * 1000)
        rotated = None
        if KEY_ID.fullmatch(request.key_id):
            rotated = await self._maker.rotate(request.key_id, overlap_ms / 1000)
        if rotated is None:
            raise not_found("key_id", GONE)
        key, secret = rotated
        return pb.RotateKeyResponse(key=key_to_proto(key), secret=secret)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, _context: Context
    ) -> pb.RevokeKeyResponse:
        """Revoke a key in all processes at once."""
        key = None
        if KEY_ID.fullmatch(request.key_id):
            key = await self._database.write(revoke_key, request.key_id, self._now_ms())
        if key is None:
            raise not_found("key_id", "There is no key with this ID.")
        return pb.RevokeKeyResponse(key=key_to_proto(key))

    def _now_ms(self) -> int:
        return round(self._clock.time() * 1000)


def _key_request(request: pb.CreateKeyRequest) -> KeyRequest | None:
    """Return the ID of a request that may be repeated, with its digest."""
    if not request.request_id:
        return None
    terms = pb.CreateKeyRequest()
    terms.CopyFrom(request)
    terms.ClearField("request_id")
    digest = hashlib.sha256(terms.SerializeToString(deterministic=True)).hexdigest()
    return KeyRequest(id=valid_request_id(request.request_id), fingerprint=digest)
