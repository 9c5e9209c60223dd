"""What operators may do to keys. The border's interceptor turns failures into statuses."""

from __future__ import annotations

import re
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import key_service_pb2 as pb
from pomogator.accounts.v1 import key_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.accounts.keys import KeyMaker
from services.accounts.paging import START, Page
from services.clock import Clock
from services.errors import Failure
from services.storage.base import Database
from services.storage.keys import KeyScope, StoredKey, list_keys, revoke_key
from services.storage.pepper import Pepper

Context = grpc.aio.ServicerContext[Any, Any]

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
DISPLAY_NAME_MAX = 128


class KeyServicer(pb_grpc.KeyServiceServicer):
    """Makes, lists and revokes keys."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database = database
        self._maker = KeyMaker(database, pepper, clock)
        self._clock = clock

    async def CreateKey(  # noqa: N802  The method's name in the proto.
        self, request: pb.CreateKeyRequest, _context: Context
    ) -> pb.CreateKeyResponse:
        """Makes a key, and its account if there is none."""
        if not ACCOUNT_NAME.fullmatch(request.account):
            raise _invalid("account", "account is 1 to 64 letters, digits, `_-.@`")
        if len(request.display_name) > DISPLAY_NAME_MAX:
            raise _invalid(
                "display_name", f"display_name has at most {DISPLAY_NAME_MAX} characters"
            )
        scope = scope_from_proto(request.scope)
        key, secret = await self._maker.make(request.account, request.display_name, scope)
        return pb.CreateKeyResponse(key=key_to_proto(key), secret=secret)

    async def ListKeys(  # noqa: N802  The method's name in the proto.
        self, request: pb.ListKeysRequest, _context: Context
    ) -> pb.ListKeysResponse:
        """Lists keys, oldest first."""
        page = Page.of(request.page_size, request.page_token)
        found = await self._database.read(list_keys, page.limit, request.account, page.after)
        shown = page.cut(found)
        last = (shown[-1].created_ms, shown[-1].id) if shown else START
        return pb.ListKeysResponse(
            keys=[key_to_proto(key) for key in shown],
            next_page_token=page.next_token(found, last),
        )

    async def RevokeKey(  # noqa: N802  The method's name in the proto.
        self, request: pb.RevokeKeyRequest, _context: Context
    ) -> pb.RevokeKeyResponse:
        """Revokes a key, everywhere at once."""
        now_ms = round(self._clock.time() * 1000)
        key = await self._database.write(revoke_key, request.key_id, now_ms)
        if key is None:
            raise Failure(
                reasons.ERROR_REASON_NOT_FOUND, "There is no key of that ID.", param="key_id"
            )
        return pb.RevokeKeyResponse(key=key_to_proto(key))


def key_to_proto(key: StoredKey) -> pb.Key:
    """What operators see of a key."""
    message = pb.Key(
        key_id=key.id,
        account=key.account,
        display_name=key.display_name,
        prefix=key.prefix,
        create_time=_timestamp(key.created_ms),
        scope=scope_to_proto(key.scope),
    )
    if key.revoked_ms is not None:
        message.revoke_time.CopyFrom(_timestamp(key.revoked_ms))
    return message


def scope_to_proto(scope: KeyScope) -> pb.KeyScope:
    """What operators see of a scope."""
    message = pb.KeyScope(models=sorted(scope.models), strict=scope.strict)
    if scope.expire_ms is not None:
        message.expire_time.CopyFrom(_timestamp(scope.expire_ms))
    return message


def scope_from_proto(message: pb.KeyScope) -> KeyScope:
    """A scope as operators give it."""
    expires = message.HasField("expire_time")
    return KeyScope(
        models=frozenset(message.models),
        strict=message.strict,
        expire_ms=message.expire_time.ToMilliseconds() if expires else None,
    )


def _timestamp(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp


def _invalid(param: str, message: str) -> Failure:
    return Failure(reasons.ERROR_REASON_INVALID_FIELD, message, param=param)
