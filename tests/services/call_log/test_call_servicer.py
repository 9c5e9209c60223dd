"""CallService on a store that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pomogator.calls.v1 import call_service_pb2 as pb

from services.call_log.call_reader import CallLogReader
from services.call_log.call_scope import CallScope
from services.call_log.call_servicer import READS_MAX, CallServicer
from services.rpc.call_context import Context
from services.storage.call_store import CallBatch, CallSegment


@dataclass(slots=True)
class SlowStore:
    """A store of one segment, whose reads end when they may."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0

    @property
    def times_ms(self) -> tuple[int, int]:
        """All times."""
        return 0, 2**53

    async def read(self, transaction: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        """Wait, and find nothing."""
        self.running += 1
        await self.released.wait()
        self.running -= 1
        return ()

    async def segments(self, start_ms: int, end_ms: int) -> Sequence[CallSegment]:
        """Return this."""
        return [self]

    async def write(self, batch: CallBatch) -> None:
        """Drop a batch."""

    async def forget(self, before_ms: int) -> None:
        """Have nothing to drop."""

    async def close(self) -> None:
        """Have nothing to close."""


async def nothing() -> None:
    """Wait for no row."""


async def test_exports_wait_among_the_reads_of_their_kind_of_callers() -> None:
    """However many a tenant starts: operators' reads wait for `READS_MAX` of them at most."""
    store, context = SlowStore(), cast("Context", None)

    async def scope(_: object) -> CallScope:
        return CallScope("acme")

    servicer = CallServicer(CallLogReader(store, nothing), scope)

    async def export() -> list[pb.ExportCallsResponse]:
        return [part async for part in servicer.ExportCalls(pb.ExportCallsRequest(), context)]

    exports = [asyncio.create_task(export()) for _ in range(10 * READS_MAX)]
    lists = [
        asyncio.create_task(servicer.ListCalls(pb.ListCallsRequest(), context))
        for _ in range(READS_MAX)
    ]
    for _ in range(100):
        await asyncio.sleep(0)

    assert store.running == READS_MAX
    store.released.set()
    assert [len(parts) for parts in await asyncio.gather(*exports)] == [1] * len(exports)
    await asyncio.gather(*lists)
