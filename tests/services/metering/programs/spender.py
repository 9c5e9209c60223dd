"""Program that spends until it is killed: `spender.py STATE|postgresql://… NAME`.

It says on stdout what it was promised, a line each, once the database has promised it:
`credit ID AMOUNT`, `reserved HOLD`, `settled HOLD CHARGE`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count
from pathlib import Path

from services.clock import SystemClock
from services.domain.usage import Usage
from services.errors import Failure
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import credit_account, ensure_account
from services.storage.opening import open_database

USAGE = Usage(prompt_token_count=7, completion_token_count=3)
CHANCE = random.SystemRandom()
WORKERS = 16
LEASE_S = 1.0


def say(line: str) -> None:
    """Write a line to the parent."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def spend(ledger: Ledger) -> None:
    """Run calls one after the other: some stream, some fail, some exceed their hold."""
    while True:
        amount = CHANCE.randrange(1, 1000)
        order = (HoldTerms(account="acme", key_id="key-1", model="a/b"), "r", amount)
        try:
            hold = await ledger.reserve(*order)
        except Failure:
            await asyncio.sleep(0.001)
            continue
        say(f"reserved {hold.id}")
        for part in range(CHANCE.randrange(3)):
            ledger.checkpoint(hold, part * amount // 4, USAGE)
            await asyncio.sleep(CHANCE.random() / 50)
        if CHANCE.random() < 0.2:
            ledger.void(hold)
            continue
        charge = CHANCE.randrange(amount * 5 // 4 + 1)
        ledger.settle(hold, charge, USAGE)
        if CHANCE.random() < 0.1:
            await ledger.drain()
            say(f"settled {hold.id} {charge}")


async def main() -> None:
    """Credit the account and run calls, until killed."""
    where, name = sys.argv[1:]
    url = where if "://" in where else ""
    database = await open_database(Path(where), url, SystemClock())
    await database.write(ensure_account, "acme", 0)
    async with Ledger(database, SystemClock(), lease_s=LEASE_S) as ledger:
        workers = [asyncio.create_task(spend(ledger)) for _ in range(WORKERS)]
        for number in count():
            amount = CHANCE.randrange(1, 5000)
            await database.write(credit_account, "acme", amount, f"{name}-{number}", 0)
            say(f"credit {name}-{number} {amount}")
            await asyncio.sleep(0.005)
        await asyncio.gather(*workers)


asyncio.run(main())
