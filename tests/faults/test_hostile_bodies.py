"""Bodies that are well framed and not too large, but much work: where and how they are read.

How long they hold the loop is measured by `tests.bench.hostile_bodies`.
"""

from __future__ import annotations

import json
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import pytest
from multidict import CIMultiDict
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.overload.thresholds import BODY_COST_ARRIVING
from gateway.surfaces.openai_chat.decode import decode
from gateway.transcoding.bindings import bindings
from gateway.transcoding.request_builder import build
from services.common.contract.chat import read_request
from services.errors import Failure
from services.rpc.large_requests import COST_ENCODED, LargeRequest, decoded
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import MODEL, TEXT, fitting
from tests.stand.hostile_bodies import ACCEPTED, REFUSED

QUICK = ("comb of arrays", "long keys", "tools with unknown members", "pictures", "metadata")
"""Bodies of different kinds. The nightly tests take the others, too."""

READERS = {
    "gateway/surfaces/openai_chat/decode_fields.py:decode_fields",
    "services/metering/tokens.py:estimate_prompt",
    "services/completions/reasoning_memory.py:_keys_of",
    "services/completions/stored_calls.py:request_fingerprint",
    "services/providers/openai/request.py:encode",
}
"""Functions whose time grows with a request."""

READER_OF_SESSIONS = "services/completions/joined_repeats.py:_key"
"""Such a function for requests of a session alone."""


NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.nightly)
    for name in (*REFUSED, *ACCEPTED)
]

SMALL_BYTES = 64 * 2**20
"""Most memory of 200,000 values beside the bytes of a body, which are few then."""


def body_of(name: str) -> bytes:
    """The body of that name, for the model of the stand."""
    body = (REFUSED.get(name) or ACCEPTED[name])()
    return body.replace(b'"model":"m"', b'"model":"%b"' % MODEL.encode(), 1)


@contextmanager
def peak_bytes() -> Iterator[Callable[[], int]]:
    """A function that returns the most memory that Python's objects took in the context."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def readers_on_this_thread() -> Iterator[set[str]]:
    """Those of `READERS` that run on the thread of the test, which is the loop's."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code
            path = "/".join(code.co_filename.split("/")[-4:])
            readers = (*READERS, READER_OF_SESSIONS)
            seen.update(each for each in readers if f"/{path}:{code.co_name}".endswith(each))

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_body_is_read_in_the_memory_that_is_counted(name: str) -> None:
    """Whether it is refused or not, nothing larger is built of it on the way. Row 25."""
    body = body_of(name)
    with peak_bytes() as peak:
        with suppress(ApiError):
            decode(body, CIMultiDict(), EdgeConfig())

        assert peak() <= len(body) * (BODY_COST_ARRIVING - 1) + SMALL_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_body_of_an_operator_is_read_in_little_memory(name: str) -> None:
    """Its JSON is bounded before it is read. Row 25."""
    services = accounts.DESCRIPTOR.services_by_name.values()
    binding = next(each for each in bindings(services) if each.method.name == "CreateAccount")
    body = body_of(name)
    with peak_bytes() as peak:
        with pytest.raises(ApiError):
            build(binding, {}, "", body)

        assert peak() <= len(body) * (BODY_COST_ARRIVING - 1) + 2 * SMALL_BYTES


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_json_in_a_message_is_read_in_the_memory_that_is_counted(name: str) -> None:
    """The JSON is an unknown member of a request over gRPC, or the arguments of a call. Row 25."""
    text = body_of(name).decode(errors="replace")
    spec = chat.ChatCompletionSpec(model=MODEL, extra_json=text)
    spec.messages.add(role=content_pb2.ROLE_ASSISTANT).tool_calls.add(name="f", arguments=text)
    request = chat.CreateChatCompletionRequest(spec=spec)
    large = LargeRequest(request.SerializeToString(), type(request).FromString)
    with peak_bytes() as peak:
        with suppress(Failure):
            await decoded(large, read_request)

        assert peak() <= len(large.data) * COST_ENCODED + SMALL_BYTES


@pytest.mark.parametrize("name", [each for each in REFUSED if each in QUICK])
async def test_a_hostile_body_is_refused(open_stand: OpenStand, name: str) -> None:
    """No provider is called. Row 25."""
    stand = await open_stand()

    assert (await stand.send(body_of(name))).status == 400
    assert stand.first.requests == []


@pytest.mark.parametrize("size", [1_000, 1_000_000])
async def test_a_large_request_is_read_off_the_loop(open_stand: OpenStand, size: int) -> None:
    """Decoding, the estimate of its tokens, digests and encoding. Row 25."""
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
        reply = await stand.ask(messages=messages, headers={"Idempotency-Key": "a"})

    assert reply.content == TEXT
    assert seen == (READERS if size < 65_536 else set())


@pytest.mark.parametrize("size", [1_000, 1_000_000])
async def test_a_large_request_of_a_session_is_read_off_the_loop(
    open_stand: OpenStand, size: int
) -> None:
    """So is the digest by which its repeats are known. Row 25."""
    stand = await open_stand()
    stand.play(fitting)
    messages = [{"role": "user", "content": "x" * size}]

    with readers_on_this_thread() as seen:
        reply = await stand.ask(messages=messages, headers={"X-Session-Id": "s-1"})

    assert reply.content == TEXT
    assert (READER_OF_SESSIONS in seen) is (size < 65_536)
