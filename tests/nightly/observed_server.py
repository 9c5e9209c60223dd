"""`pomogator serve` that logs its tasks on SIGUSR1.

    python -m tests.nightly.observed_server serve …

It then looks for garbage and logs a line `process.observed` with its tasks, by kind.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections import Counter
from types import FrameType

from services.cli import main

log = logging.getLogger(__name__)


def observe(_number: int, _frame: FrameType | None) -> None:
    """Schedules the log line in the event loop."""
    asyncio.get_running_loop().call_soon_threadsafe(_tell)


def _tell() -> None:
    gc.collect()
    kinds = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    log.info("process.observed", extra={"tasks": dict(kinds)})


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, observe)
    sys.exit(main())
