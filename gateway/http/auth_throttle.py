"""Authentication throttle: addresses with too many failures get 429 in place of 401.

Only failures count, and only failures are throttled: a valid key works from an address from which
others guess keys, such as that of a company or a proxy.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address

from aiohttp import web
from multidict import MultiMapping

from gateway.errors import ApiError
from gateway.http.middleware import Handler
from gateway.http.trusted_proxies import TrustedProxies
from services.domain.error_reason import ErrorReason

FAILURES = 20
"""Burst of failures that get 401; after it, one in every `REFILL_S` does."""

REFILL_S = 3.0

SUBNETS_MAX = 10_000
"""The most addresses in memory. The one with the oldest last failure is dropped first."""

_SUBNET_GROUPS = 4


class AuthThrottle:
    """Failures by address of the client, behind proxies that are trusted."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, proxies: TrustedProxies | None = None
    ) -> None:
        self._now = now
        self._proxies = proxies or TrustedProxies()
        # By address: when its whole burst is available again (GCRA).
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def record_failure(self, address: str) -> float:
        """Count a failure. Return the seconds to wait, or 0 or less within the burst."""
        now = self._now()
        subnet = _subnet(address)
        full_at = max(self._full_at.pop(subnet, now), now)
        retry_after_s = full_at - now - (FAILURES - 1) * REFILL_S
        self._full_at[subnet] = full_at if retry_after_s > 0 else full_at + REFILL_S
        if len(self._full_at) > SUBNETS_MAX:
            self._full_at.popitem(last=False)
        return retry_after_s

    def throttled(self, error: ApiError, peer: str, headers: MultiMapping[str]) -> ApiError:
        """Return `error`, or a 429 if it is one authentication failure of its client too many.

        `peer` is the address that the request with these headers came from.
        """
        if not error.row.failed_auth:
            return error
        retry_after_s = self.record_failure(self._proxies.client(peer, headers))
        if retry_after_s <= 0:
            return error
        return ApiError(
            ErrorReason.RATE_LIMIT_EXCEEDED,
            "Too many requests from this address had no valid API key.",
            retry_after_s=retry_after_s,
        )

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Throttle the failures of requests that aiohttp routes."""
        try:
            return await handler(request)
        except ApiError as error:
            raise self.throttled(error, request.remote or "", request.headers) from None


def _subnet(address: str) -> str:
    """Return an IPv4 address itself, and the /64 of an IPv6 address: one client has all of it."""
    try:
        groups = IPv6Address(address).exploded.split(":")
    except AddressValueError:
        return address
    return ":".join(groups[:_SUBNET_GROUPS])
