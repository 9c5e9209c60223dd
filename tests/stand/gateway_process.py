"""A gateway in a process of its own, for tests that measure a process.

`python -m tests.stand.gateway_process STATE DIALECT BASE_URL TOPOLOGY` prints a line
of JSON with its base URL and a key, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import cast

from tests.stand.dialect_stand import configuration
from tests.stand.gateway import Transport, running


async def main(state: str, dialect: str, base_url: str, transport: str) -> None:
    """Serves until standard input ends."""
    channel, model = configuration(dialect, base_url)
    where = cast("Transport", transport)
    async with running(Path(state), channel, models=[model], transport=where) as gateway:
        print(json.dumps({"base_url": gateway.base_url, "key": gateway.key}), flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
