"""Calls that failed leave nothing in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping

import pytest

from services.completions.completion_call import CompletionCall
from tests.faults.fault_stand import BEGIN, FaultStand
from tests.stand.upstream import CUT, SSE_HEAD, Script, json_answer, sse

FAULTS: Mapping[str, Script] = {
    "refused": [json_answer({"error": {"message": "no"}}, 400)],
    "failed": [json_answer({"error": {"message": "busy"}}, 503)],
    "unreadable": [json_answer({"choices": "none"})],
    "cut before the answer": [CUT],
    "cut": [BEGIN, CUT],
    "failed in the answer": [BEGIN, sse({"error": {"message": "busy", "code": 503}}), CUT],
    "unreadable in the answer": [BEGIN, sse({"choices": "none"}), CUT],
    "empty": [SSE_HEAD, CUT],
}


@pytest.fixture
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failed_call_is_freed_without_garbage_collection(
    stand: FaultStand, fault: str, streamed: bool
) -> None:
    """Its request may have 48 MB, and an idle process collects no garbage for a long time."""
    stand.play(FAULTS[fault], second=FAULTS[fault])

    reply = await stand.ask(stream=streamed)

    assert reply.code
    await stand.until(
        lambda: not any(isinstance(each, CompletionCall) for each in gc.get_objects())
    )
