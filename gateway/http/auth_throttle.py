"""Keys that are guessed: whoever fails too often is told to come back later.

Only failures are counted, and only failures are answered differently: a valid key works
from an address from which others guess, such as that of a company or a proxy.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address

from aiohttp import web
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError
from gateway.http.middleware import Handler

FAILURES = 20
"""Failures at once that are answered as what they are; then one for each `REFILL_S`."""

REFILL_S = 3.0

PEERS_MAX = 10_000
"""The most addresses that are remembered. The one that failed longest ago is forgotten first."""

_SUBNET_GROUPS = 4


class AuthThrottle:
    """What addresses have failed with."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # By address: when it will have regained all that it used up (GCRA).
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def failed(self, address: str) -> float:
        """Takes note of a failure. Positive: it is one too many, for so many seconds."""
        now = self._now()
        peer = _peer(address)
        full_at = max(self._full_at.pop(peer, now), now)
        wait_s = full_at - now - (FAILURES - 1) * REFILL_S
        self._full_at[peer] = full_at if wait_s > 0 else full_at + REFILL_S
        if len(self._full_at) > PEERS_MAX:
            self._full_at.popitem(last=False)
        return wait_s

    def judged(self, error: ApiError, address: str) -> ApiError:
        """What the client at `address` gets for `error`: mostly that."""
        if not error.row.failed_auth:
            return error
        wait_s = self.failed(address)
        if wait_s <= 0:
            return error
        return ApiError(
            reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED,
            "Too many requests from this address had no valid API key.",
            retry_after_s=wait_s,
        )

    @web.middleware
    async def slow(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers 429 in place of 401 where an address has failed too often."""
        try:
            return await handler(request)
        except ApiError as error:
            raise self.judged(error, request.remote or "") from None


def _peer(address: str) -> str:
    """Whom an address stands for: in IPv6 everybody has at least a /64."""
    try:
        groups = IPv6Address(address).exploded.split(":")
    except AddressValueError:
        return address
    return ":".join(groups[:_SUBNET_GROUPS])
