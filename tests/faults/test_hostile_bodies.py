"""Bodies that are well framed and not too large, but much work: where and how they are read.

How long they hold the loop is measured by `tests.bench.hostile_bodies`.
"""

from __future__ import annotations

import json
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import pytest

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.overload.thresholds import BODY_COST_ARRIVING
from gateway.surfaces.openai_chat.decode import decode
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import MODEL, TEXT, fitting
from tests.stand.hostile_bodies import ACCEPTED, REFUSED

QUICK = ("comb of arrays", "long keys", "tools with unknown members", "pictures", "metadata")
"""Bodies of different kinds. The nightly tests take the others, too."""

READERS = {
    "gateway/surfaces/openai_chat/decode.py:_decode",
    "services/metering/tokens.py:estimate_prompt",
    "services/completions/reasoning_memory.py:_keys_of",
    "services/providers/openai/request.py:encode",
}
"""Functions whose time grows with a request."""


NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.nightly)
    for name in (*REFUSED, *ACCEPTED)
]

SMALL_BYTES = 64 * 2**20
"""What 200,000 values may take beside the bytes of a body, which are few then."""


def body_of(name: str) -> bytes:
    """The body of that name, for the model of the stand."""
    body = (REFUSED.get(name) or ACCEPTED[name])()
    return body.replace(b'"model":"m"', b'"model":"%b"' % MODEL.encode(), 1)


@contextmanager
def readers_on_this_thread() -> Iterator[set[str]]:
    """Those of `READERS` that run on the thread of the test, which is the loop's."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code
            path = "/".join(code.co_filename.split("/")[-4:])
            seen.update(each for each in READERS if f"/{path}:{code.co_name}".endswith(each))

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_body_is_read_in_the_memory_that_is_counted(name: str) -> None:
    """Whether it is refused or not, nothing larger is built of it on the way. Row 25."""
    body = body_of(name)
    tracemalloc.start()
    try:
        with suppress(ApiError):
            decode(body, EdgeConfig())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak <= len(body) * (BODY_COST_ARRIVING - 1) + SMALL_BYTES


@pytest.mark.parametrize("name", [each for each in REFUSED if each in QUICK])
async def test_a_hostile_body_is_refused(open_stand: OpenStand, name: str) -> None:
    """No provider is called. Row 25."""
    stand = await open_stand()

    assert (await stand.send(body_of(name))).status == 400
    assert stand.first.requests == []


@pytest.mark.parametrize("size", [1_000, 1_000_000])
async def test_a_large_request_is_read_off_the_loop(open_stand: OpenStand, size: int) -> None:
    """Decoding, the estimate of its tokens, the digests of its calls and encoding. Row 25."""
    stand = await open_stand()
    stand.play(fitting)
    function = {"name": "f", "arguments": json.dumps({"a": "x" * size})}
    call = {"id": "c", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ]

    assert threading.current_thread() is threading.main_thread()
    with readers_on_this_thread() as seen:
        reply = await stand.ask(messages=messages)

    assert reply.content == TEXT
    assert seen == (READERS if size < 65_536 else set())
