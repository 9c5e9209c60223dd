"""A process that makes a named call until it is killed: `caller.py postgresql://… ACCOUNT KEY`.

It says `begun` on stdout once the call is being made. Its lease is short.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.clock import SystemClock
from services.completions.idempotency import Idempotency, IdempotentCall
from services.metering.ledger import Ledger
from services.providers.base import Batch
from services.storage.opening import open_database
from services.storage.pepper import Pepper

LEASE_S = 2.0
PEPPER = Pepper(b"salt is not enough")


async def make() -> AsyncGenerator[Batch, None]:
    """An answer that never comes."""
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
    yield Batch()


async def ignore() -> None:
    """Never comes to a replay."""


async def main() -> None:
    """Makes the call."""
    url, account, key = sys.argv[1:]
    database = await open_database(Path(), url, SystemClock())
    spec = pb.ChatCompletionSpec(model="a/b")
    spec.messages.add().content.add().text = "Hello"
    call = IdempotentCall(
        account=account,
        key=key,
        spec=spec,
        parameter_policy=pb.PARAMETER_POLICY_UNSPECIFIED,
    )
    async with (
        Ledger(database, SystemClock(), lease_s=LEASE_S) as ledger,
        Idempotency(database, ledger.owner, PEPPER) as once,
    ):
        async for _ in once.stream(call, make, ignore):
            pass


asyncio.run(main())
