"""Nothing of a request is lost in silence, over real sockets: REST, stubs and every dialect.

A member in any object of a request reaches the provider, or has a note, or is refused with 400.
`tests.nightly.request_members` has many more cases, without sockets.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from gateway.surfaces.answer_headers import NOTES_HEADER
from services.config import ChannelConfig, ModelConfig
from services.rpc.listener import listening
from tests.stand.dialect_stand import DIALECTS, UPSTREAM_MODELS
from tests.stand.gateway import Gateway, running
from tests.stand.planted_requests import PLACES, REQUESTS, Path, Plant, is_about, texts
from tests.stand.planted_specs import StubPlant, stub_places
from tests.stand.upstream import FakeUpstream, Request, json_answer
from tests.stand.upstream import stream as events_of

TOKEN = "planted-text"
STATUSES = {grpc.StatusCode.INVALID_ARGUMENT: 400}
"""The only code with which a stub's request may be refused, and its HTTP status."""
MESSAGE: Mapping[str, Any] = {"role": "assistant", "content": "ok"}
MESSAGE_EVENTS = (
    {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "ok"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
)
RESPONSE = {"status": "completed", "output": [{"type": "message", "content": "ok"}]}


def respond(request: Request) -> list[bytes]:
    """Answer any request in its dialect."""
    if request.path.endswith("/messages"):
        return [events_of(MESSAGE_EVENTS, done=False)]
    if request.path.endswith("/responses"):
        return [events_of([{"type": "response.completed", "response": RESPONSE}], done=False)]
    choice = {"index": 0, "finish_reason": "stop"}
    if request.json()["stream"]:
        return [events_of([{"choices": [choice | {"delta": MESSAGE}]}])]
    return [json_answer({"choices": [choice | {"message": MESSAGE}]})]


@dataclass(frozen=True, slots=True)
class Stand:
    """A gateway that is two processes' worth of sockets, and its provider."""

    gateway: Gateway
    upstream: FakeUpstream
    stub: Any

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a stub's call."""
        return (("authorization", f"Bearer {self.gateway.key}"),)

    async def post(self, body: Any) -> tuple[int, frozenset[str]]:
        """Return the status of a REST request, and the notes of its answer."""
        url = f"{self.gateway.base_url}/chat/completions"
        async with self.gateway.http.post(url, json=body) as answer:
            await answer.read()
            notes = json.loads(answer.headers.get(NOTES_HEADER, "[]"))
            return answer.status, frozenset(note["param"] for note in notes)

    async def call(self, request: pb.CreateChatCompletionRequest) -> tuple[int, frozenset[str]]:
        """Return 200 and the notes of the answer to a stub's call, or 400."""
        try:
            answer = await self.stub.CreateChatCompletion(request, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            return STATUSES[error.code()], frozenset()
        return 200, frozenset(note.param for note in answer.notes)

    def arrived(self) -> bool:
        """Whether the provider's last request has the text."""
        return TOKEN in texts(self.upstream.requests[-1].body)


@pytest.fixture(params=DIALECTS)
async def stand(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Stand]:
    """An edge, a service behind gRPC, and a provider of one dialect."""
    dialect = request.param
    async with FakeUpstream() as upstream:
        upstream.play(respond)
        channel = ChannelConfig(
            name="a",
            dialect=dialect,
            base_url=upstream.url,
            models={"m": UPSTREAM_MODELS[dialect]},
        )
        async with (
            running(tmp_path, channel, models=[ModelConfig(name="m")], transport="tcp") as gateway,
            listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
            grpc.aio.insecure_channel(address) as line,
        ):
            yield Stand(gateway, upstream, pb_grpc.ChatCompletionServiceStub(line))


def is_told(way: Path, notes: frozenset[str], before: frozenset[str]) -> bool:
    """Whether a note is new, or about what contains the member."""
    return bool(notes - before) or any(is_about(param, way) for param in notes)


async def test_no_member_of_a_rest_request_is_lost(stand: Stand) -> None:
    """Every object of every request has one."""
    for name, path in PLACES:
        status, before = await stand.post(REQUESTS[name])
        if status != 200:
            assert status == 400
            continue
        plant = Plant(name, path, "planted", TOKEN)
        status, notes = await stand.post(plant.body())
        assert status in {200, 400}, plant
        assert status == 400 or stand.arrived() or is_told(plant.way, notes, before), plant


async def test_no_field_of_a_stubs_request_is_lost(stand: Stand) -> None:
    """Every message of every request has other members, and each field that holds text is set."""
    for name, path, field in stub_places():
        value = {"planted": TOKEN} if field.endswith("_json") else TOKEN
        plant = StubPlant(name, path, field, value)
        status, before = await stand.call(StubPlant(name, (), "extra_json", {}).message())
        if status != 200:
            continue
        status, notes = await stand.call(plant.message())
        assert status == 400 or stand.arrived() or is_told(plant.way, notes, before), plant
