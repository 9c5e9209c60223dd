"""Large requests over gRPC: what is known and bounded before objects are built from them.

gRPC says how large a request is only when all of its bytes are there. Those beyond `LARGE_BYTES`
are left as they are until their caller's key is known, their memory fits the budget, and their
fields are counted. A thread decodes them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from services.common.memory_budget import MemoryBudget
from services.common.off_loop import off_loop
from services.common.request_headers import unchecked_token
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.call_context import Context, metadata_of, set_request_bytes
from services.rpc.field_count import count_fields
from services.rpc.receptions import Receptions

REQUEST_BYTES_MAX = 48 * 2**20
"""The largest request. It contains pictures: the edge's limit on bodies, and the overhead of
base64."""

LARGE_BYTES = 16 * 1024
"""The largest request that is decoded at once. Decoding and translating that many bytes takes 15 ms
at most, whatever they are."""

OBJECTS_PER_BYTE = 8
"""A byte of a message may hold eight times the objects of one of JSON, for which `off_loop` is
made: so many times larger a request seems to it."""

FIELDS_MAX = 200_000
"""The most fields of a request. The same number of JSON values is allowed over REST."""

COST_ENCODED, COST_DECODED = 5, 3
"""Bytes of memory for each byte of a request until it is decoded, and after that."""

T = TypeVar("T")

UNDECODABLE = "The request cannot be decoded."

RETRY_AFTER_S = 1.0
"""The wait before a retry of a request for which there is no memory."""


class LargeRequest(NamedTuple):
    """A request that is not decoded yet."""

    data: bytes
    decode: Callable[[bytes], Any]


class LargeRequests:
    """Opens large requests."""

    def __init__(
        self,
        check_key: Callable[[str | None], Awaitable[object]] | None = None,
        budget: MemoryBudget | None = None,
        has_spare_memory: Callable[[], bool] = lambda: False,
    ) -> None:
        """`check_key` raises Failure for an invalid credential.

        Without it the interceptors know the caller. None as the budget: memory is not limited.
        `has_spare_memory` says whether the process has more memory than requests need.
        """
        self._check_key = check_key
        self._budget = budget
        self._receptions: Receptions | None = None
        if budget is not None:
            self._receptions = Receptions.within(
                budget.bytes_max, REQUEST_BYTES_MAX, has_spare_memory
            )

    async def begin_reception(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Begin to receive a request of any size. Raises Failure OVERLOADED."""
        if self._receptions is not None:
            values = [value for name, value in metadata if name == "authorization"]
            await self._receptions.begin(unchecked_token(str(values[0])) if values else "")

    @asynccontextmanager
    async def opened(self, request: LargeRequest, context: Context) -> AsyncIterator[object]:
        """Yield the decoded request, whose memory counts until the context ends.

        Raises Failure: what `check_key` raises, OVERLOADED, INVALID_FIELD.
        """
        authorization = metadata_of(context).get("authorization")
        if self._check_key is not None:
            await self._check_key(authorization)
        budget, key, size = self._budget, unchecked_token(authorization or ""), len(request.data)
        taken = 0
        if budget is not None:
            taken = size * COST_ENCODED
            if not budget.take(key, taken):
                message = "There is no memory for a request so large. Please try again."
                raise Failure(ErrorReason.OVERLOADED, message, retry_after_s=RETRY_AFTER_S)
        try:
            message_of_caller = await decoded(request, _unchanged)
            set_request_bytes(size)
            if budget is not None:
                spare, taken = taken - size * COST_DECODED, size * COST_DECODED
                budget.give_back(key, spare)
            del request
            yield message_of_caller
        finally:
            if budget is not None:
                budget.give_back(key, taken)


async def decoded(request: LargeRequest, translate: Callable[[Any], T]) -> T:
    """Return the decoded and translated request. Raises Failure INVALID_FIELD.

    A thread does both where the request is large.
    """
    size = len(request.data) * OBJECTS_PER_BYTE
    return await off_loop(size, _decode, request, translate)


def _decode(request: LargeRequest, translate: Callable[[Any], T]) -> T:
    data = request.data
    descriptor = getattr(getattr(request.decode, "__self__", None), "DESCRIPTOR", None)
    if (
        len(data) > LARGE_BYTES
        and isinstance(descriptor, Descriptor)
        and count_fields(data, descriptor, FIELDS_MAX) > FIELDS_MAX
    ):
        refusal = f"The request has more than {FIELDS_MAX} fields."
        raise Failure(ErrorReason.INVALID_FIELD, refusal)
    try:
        message = request.decode(data)
    except DecodeError:
        raise Failure(ErrorReason.INVALID_FIELD, UNDECODABLE) from None
    return translate(message)


def _unchanged(message: object) -> object:
    return message
