"""How long the path of a chat completion through the code may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.opcodes import KINDS, count_opcodes
from tests.bench.request_path import Figures, measure

FILES_MAX = 50
CALLS_MAX = {"streamed": 216, "whole": 132}
COROUTINES_MAX = 4


async def test_the_path_of_a_request_grows_no_longer(tmp_path: Path) -> None:
    """Files, calls and coroutines of a streamed and a whole completion stay within bounds.

    Lower them when the path gets shorter. How often a call waits depends on the machine, so calls
    have some slack.
    """
    streamed, whole = (Figures.of(trace) for trace in await measure(tmp_path))

    assert 20 < streamed.files <= FILES_MAX
    assert 20 < whole.files <= FILES_MAX
    assert 100 < streamed.calls <= CALLS_MAX["streamed"]
    assert 100 < whole.calls <= CALLS_MAX["whole"]
    assert len(streamed.coroutines_per_message) == 3
    assert all(1 < number <= COROUTINES_MAX for number in streamed.coroutines_per_message)


@pytest.mark.parametrize(
    ("passed", "translated"), [("raw_messages", "anthropic"), ("raw_responses", "responses")]
)
async def test_a_request_that_passes_costs_less(
    tmp_path: Path, passed: str, translated: str
) -> None:
    """A short one takes at most 0.8 of the opcodes of a chat completion to the same channel."""
    opcodes = {
        name: (await count_opcodes(KINDS[name], tmp_path / name)).total()
        for name in (passed, translated)
    }
    assert 1_000 < opcodes[passed] <= 0.8 * opcodes[translated]
