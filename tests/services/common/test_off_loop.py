from __future__ import annotations

import threading

import pytest

from services.common.off_loop import OFF_LOOP_BYTES, off_loop


async def test_small_bodies_are_read_on_the_loop() -> None:
    """The way through the thread would cost more."""
    assert await off_loop(OFF_LOOP_BYTES, threading.get_ident) == threading.get_ident()


async def test_large_bodies_are_read_by_one_other_thread() -> None:
    """The same one for all of them."""
    threads = {await off_loop(OFF_LOOP_BYTES + 1, threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("size", [0, OFF_LOOP_BYTES + 1])
async def test_errors_pass_unchanged(size: int) -> None:
    """Arguments do, too."""
    with pytest.raises(ValueError, match="invalid literal"):
        await off_loop(size, int, "x")
    assert await off_loop(size, int, "10", base=16) == 16
