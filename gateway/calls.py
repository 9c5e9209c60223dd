"""Calls to the service, each of which ends with the request that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError
from gateway.statuses import from_rpc


class Calls:
    """The calls that are under way."""

    def __init__(self) -> None:
        self._live: set[grpc.aio.Call] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextmanager
    def own(self, call: Any, request_id: str) -> Iterator[None]:
        """Around all that is done with `call`: at the end it is cancelled if it still runs.

        Raises:
            ApiError: the call failed, or was stopped by `drain`.
        """
        self._live.add(call)
        self._quiet.clear()
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, request_id) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # The client left, and with it this handler.
            message = "The gateway is shutting down. Please try again."
            reason = reasons.ERROR_REASON_SHUTTING_DOWN
            raise ApiError(reason, message, retry_after_s=1.0) from None
        finally:
            call.cancel()
            self._live.discard(call)
            if not self._live:
                self._quiet.set()

    async def drain(self, limit_s: float) -> None:
        """Waits for the calls to end; after `limit_s`, ends them."""
        try:
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()
        except TimeoutError:
            for call in list(self._live):
                call.cancel()
