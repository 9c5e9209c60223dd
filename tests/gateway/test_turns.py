"""An edge apart whose event loop stays late."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.turns import CALLS_ALWAYS, LATE_S, PATIENCE_S, Lateness, watch_turns
from gateway.window import Window


def test_late_for_a_moment() -> None:
    """Long steps, as large pictures are, and many calls at once are no overload."""
    lateness = Lateness()
    assert not lateness.look(10.0, 5.0)
    assert not lateness.look(10.0 + PATIENCE_S / 2, 2 * LATE_S)
    assert not lateness.look(10.0 + PATIENCE_S, LATE_S)
    assert not lateness.look(10.0 + PATIENCE_S * 1.5, 2 * LATE_S)


def test_late_without_a_break() -> None:
    """From when it has lasted for as long as it may, until a turn is in time."""
    lateness = Lateness()
    assert not lateness.look(10.0, 2 * LATE_S)
    assert lateness.look(10.0 + PATIENCE_S, 2 * LATE_S)
    assert lateness.look(11.0, 2 * LATE_S)
    assert not lateness.look(11.1, LATE_S)


@pytest.mark.parametrize(
    ("running", "size"), [(CALLS_ALWAYS + 1, CALLS_ALWAYS), (CALLS_ALWAYS, None)]
)
async def test_a_late_loop_bounds_calls(running: int, size: int | None) -> None:
    """Turns are looked at whole, of a real loop; few calls are not what makes it late."""
    window = Window(lambda: running)
    watching = asyncio.create_task(watch_turns(window))
    ends = time.monotonic() + 4 * PATIENCE_S
    while window.size is None and time.monotonic() < ends:
        time.sleep(2 * LATE_S)  # noqa: ASYNC251 - that is what being late means
        await asyncio.sleep(0)
    watching.cancel()

    assert window.size == size
