"""Opcodes that our functions take: a measure of work that is the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / package) for package in ("gateway", "services"))


def count_opcodes(work: Callable[[], object]) -> int:
    """Return the opcodes in `gateway/` and `services/` of a call of `work`."""
    total = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal total
        total += event == "opcode"
        return count

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return count

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return total
