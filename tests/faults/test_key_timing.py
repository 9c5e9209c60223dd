"""Timing side channels of keys, by lines of code. `tests.nightly` measures microseconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import gateway.http.auth_throttle
import gateway.http.call_options
import services.admission.keyring
import services.common.key_format
import services.serving.core_backend
import services.storage.keys
import services.storage.pepper
from tests.faults.conftest import OpenStand
from tests.faults.test_keys import bearing
from tests.nightly.key_timing import KINDS, guess

FILES = {
    str(module.__file__)
    for module in (
        gateway.http.auth_throttle,
        gateway.http.call_options,
        services.common.key_format,
        services.serving.core_backend,
        services.admission.keyring,
        services.storage.keys,
        services.storage.pepper,
    )
}
"""Files whose code handles keys."""

TRIES = 5


@contextmanager
def followed() -> Iterator[Sequence[str]]:
    """The lines of `FILES` that are run within, in this thread, in order."""
    lines: list[str] = []

    def look(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield lines
    finally:
        sys.settrace(before)


async def test_all_wrong_keys_take_the_same_lines(open_stand: OpenStand) -> None:
    """However nearly a key was guessed, the same lines of code run. Row 32."""
    stand = await open_stand()
    ways = set()
    for _ in range(TRIES):
        for right in KINDS.values():
            with followed() as lines:
                reply = await stand.ask(headers=bearing(guess(stand.key, right)))
            assert (reply.status, reply.code) == (401, "invalid_api_key")
            ways.add(tuple(lines))

    assert len(ways) == 1
    assert {line.rpartition(":")[0] for line in ways.pop()} >= FILES - {
        services.storage.keys.__file__  # Its statements are carried out in another thread.
    }
