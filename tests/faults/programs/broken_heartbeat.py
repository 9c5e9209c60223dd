"""`pomogator` with a bug: the heartbeat of the ledger fails as often as the file FAILS says."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from services.cli import main
from services.metering.checkpoints import Checkpoints

FAILS = Path(os.environ["FAILS"])

_whole: Any = Checkpoints.write


def _fails() -> bool:
    """Return whether this call fails, and count it down."""
    left = int(FAILS.read_text() or "0") if FAILS.exists() else 0
    if left:
        FAILS.write_text(str(left - 1))
    return left > 0


async def _broken(checkpoints: Checkpoints) -> None:
    task = asyncio.current_task()
    if task is not None and task.get_name() == "ledger heartbeat" and _fails():
        raise RuntimeError("sk-canary-of-a-bug")
    await _whole(checkpoints)


setattr(Checkpoints, "write", _broken)  # noqa: B010 - it is not ours to assign

sys.exit(main())
