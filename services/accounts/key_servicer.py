"""KeyService, for operators. `FailureBorder` turns failures into statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pomogator.accounts.v1 import key_service_pb2 as pb
from pomogator.accounts.v1 import key_service_pb2_grpc as pb_grpc

from services.accounts.key_maker import KeyMaker
from services.accounts.paging import START, Page
from services.accounts.proto_fields import (
    account_name,
    in_range,
    invalid,
    milliseconds,
    not_found,
    timestamp,
)
from services.clock import Clock
from services.rpc.failure_border import Context
from services.storage.base import Database
from services.storage.keys import KeyScope, StoredKey, list_keys, revoke_key
from services.storage.pepper import Pepper

KEY_ID = re.compile(r"[ -~]{1,64}")
DISPLAY_NAME_MAX = 128

LIMITS: Mapping[str, tuple[str, int]] = {
    "requests_per_minute": ("rpm", 1),
    "tokens_per_minute": ("tpm", 1),
    "concurrent_call_count": ("concurrency", 1),
    "monthly_nano_usd": ("monthly_nano_usd", 0),
}
"""Limits of the proto, with their names in `KeyScope` and their minimum."""


OVERLAP_MAX_S = 90 * 24 * 3600
"""Maximum time that former secrets stay valid."""


class KeyServicer(pb_grpc.KeyServiceServicer):
    """Creates, lists, rotates and revokes keys."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database = database
        self._maker = KeyMaker(database, pepper, clock)
        self._clock = clock

    async def CreateKey(
        self, request: pb.CreateKeyRequest, _context: Context
    ) -> pb.CreateKeyResponse:
        """Create a key, and its account if it does not exist."""
        name = account_name(request.account)
        display_name = request.display_name
        if len(display_name) > DISPLAY_NAME_MAX or not display_name.isprintable():
            raise invalid(
                "display_name",
                f"display_name must be at most {DISPLAY_NAME_MAX} printable characters",
            )
        key, secret = await self._maker.make(name, display_name, scope_from_proto(request.scope))
        return pb.CreateKeyResponse(key=key_to_proto(key), secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, _context: Context) -> pb.ListKeysResponse:
        """List keys, oldest first."""
        page = Page.of(request.page_size, request.page_token)
        account = account_name(request.account) if request.account else ""
        found = await self._database.read(list_keys, page.limit, account, page.after)
        shown = page.items(found)
        last = (shown[-1].created_ms, shown[-1].id) if shown else START
        return pb.ListKeysResponse(
            keys=[key_to_proto(key) for key in shown],
            next_page_token=page.next_token(found, last),
        )

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
            raise not_found("key_id", "There is no key with this ID, or it was revoked.")
        key, secret = rotated
        return pb.RotateKeyResponse(key=key_to_proto(key), secret=secret)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, _context: Context
    ) -> pb.RevokeKeyResponse:
        """Revoke a key in all processes at once."""
        now_ms = round(self._clock.time() * 1000)
        key = None
        if KEY_ID.fullmatch(request.key_id):
            key = await self._database.write(revoke_key, request.key_id, now_ms)
        if key is None:
            raise not_found("key_id", "There is no key with this ID.")
        return pb.RevokeKeyResponse(key=key_to_proto(key))


def key_to_proto(key: StoredKey) -> pb.Key:
    """Convert a stored key to its message."""
    message = pb.Key(
        key_id=key.id,
        account=key.account,
        display_name=key.display_name,
        prefix=key.prefix,
        create_time=timestamp(key.created_ms),
        scope=scope_to_proto(key.scope),
    )
    if key.revoked_ms is not None:
        message.revoke_time.CopyFrom(timestamp(key.revoked_ms))
    return message


def scope_to_proto(scope: KeyScope) -> pb.KeyScope:
    """Convert a scope to its message."""
    return pb.KeyScope(
        models=sorted(scope.models),
        expire_time=None if scope.expire_ms is None else timestamp(scope.expire_ms),
        strict=scope.strict,
        requests_per_minute=scope.rpm,
        tokens_per_minute=scope.tpm,
        concurrent_call_count=scope.concurrency,
        monthly_nano_usd=scope.monthly_nano_usd,
    )


def scope_from_proto(message: pb.KeyScope) -> KeyScope:
    """Convert a message to a scope. Raise Failure INVALID_FIELD."""
    given = {field.name for field, _ in message.ListFields()}
    limits = {
        ours: in_range(f"scope.{theirs}", getattr(message, theirs), least)
        for theirs, (ours, least) in LIMITS.items()
        if theirs in given
    }
    if "expire_time" in given:
        limits["expire_ms"] = milliseconds("scope.expire_time", message.expire_time)
    return KeyScope(models=frozenset(message.models), strict=message.strict, **limits)
