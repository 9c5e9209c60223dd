"""A call with an idempotency key, until it is killed: `killed_caller.py URL ACCOUNT KEY`.

Writes `begun` to stdout when the call runs. Its lease is short.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from services.clock import SystemClock
from services.completions.idempotency import Idempotency, IdempotentCall
from services.domain.conversation import Message, TextPart
from services.domain.events import Batch
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.metering.ledger import Ledger
from services.storage.opening import open_database
from services.storage.pepper import Pepper

LEASE_S = 2.0
PEPPER = Pepper(b"salt is not enough")


async def run_call() -> AsyncGenerator[Batch, None]:
    """Never answer."""
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
    yield []


async def ignore() -> None:
    """Do nothing before a replay."""


async def main() -> None:
    """Make the call."""
    url, account, key = sys.argv[1:]
    database = await open_database(Path(), url, SystemClock())
    message = Message(role="user", content=[TextPart(text="Hello")])
    spec = ChatCompletionSpec(model="a/b", messages=[message])
    call = IdempotentCall(account=account, key=key, request=CompletionRequest(spec=spec))
    async with (
        Ledger(database, SystemClock(), lease_s=LEASE_S) as ledger,
        Idempotency(database, ledger.owner, PEPPER) as once,
    ):
        async for _ in once.run_once(call, run_call, ignore):
            pass


asyncio.run(main())
