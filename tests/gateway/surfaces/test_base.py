"""The seam for new inbound APIs: a second surface needs no change anywhere else."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import aiohttp
import grpc
import pytest
from pomogator.chat.v1 import content_pb2 as content

from gateway import surfaces
from gateway.config import EdgeConfig
from tests.gateway.conftest import KEY, Edge
from tests.gateway.surfaces.test_completion_handler import ASKED, CUT, NO_MONEY
from tests.gateway.surfaces.toy_surface import OVERLOADED, URL, ToySurface
from tests.stand import service
from tests.stand.service import Fault, Pause

Response: TypeAlias = "AbstractAsyncContextManager[aiohttp.ClientResponse]"

SAID = {"to": "test/model", "say": "Hello"}
LIVE = {**SAID, "live": True}
HEADERS = {"x-toy-key": KEY}

WORDS = [service.started(), service.text("Good "), service.text("day")]
END = [service.choice_finished(), service.finished()]


@pytest.fixture(autouse=True)
def toy_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in `gateway.surfaces`."""
    monkeypatch.setattr(surfaces, "SURFACES", (*surfaces.SURFACES, ToySurface()))


@pytest.fixture
def config() -> EdgeConfig:
    """An edge whose streams soon need a keep-alive."""
    return EdgeConfig(drain_timeout_s=0.1, first_event_wait_s=0.1, keep_alive_s=0.1)


class ToyClient:
    """A client of the toy API. Its key is in the toy's header alone."""

    def __init__(self, http: aiohttp.ClientSession, *, fast: bool) -> None:
        self.http = http
        self._fast = fast

    def post(self, asked: Mapping[str, object], **headers: str) -> Response:
        """Send a request whole, for the fast path, or in chunks, for aiohttp's router."""
        data = json.dumps(asked).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(
            URL,
            data=data if self._fast else _in_chunks(data),
            headers={"Content-Type": "application/json", **named},
        )


async def _in_chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data[:5]
    yield data[5:]


@pytest.fixture(params=[True, False], ids=["fast path", "router"])
async def client(request: pytest.FixtureRequest, edge: Edge) -> AsyncIterator[ToyClient]:
    """A client, over both ways into the edge."""
    base = f"http://{edge.host}:{edge.port}"
    async with aiohttp.ClientSession(base, headers=HEADERS) as session:
        yield ToyClient(session, fast=request.param)


async def test_a_whole_answer_has_its_form(edge: Edge, client: ToyClient) -> None:
    """It has the headers of every answer, and those of the service."""
    edge.script.answer = service.answer(content.ContentPart(text="Good day"))
    edge.script.initial_metadata = [("x-ratelimit-limit-requests", "60")]
    async with client.post(SAID) as response:
        assert await response.json() == {"said": "Good day"}
    assert response.headers["x-request-id"].startswith("req-")
    assert response.headers["x-ratelimit-limit-requests"] == "60"
    (spec,) = edge.script.specs
    assert (spec.model, spec.messages[0].content[0].text) == ("test/model", "Hello")
    assert edge.script.metadata[0]["authorization"] == f"Bearer {KEY}"


async def test_a_stream_has_its_events(edge: Edge, client: ToyClient) -> None:
    """They are named, and no end marker follows the last one."""
    edge.script.steps = [WORDS, END]
    async with client.post(LIVE) as response:
        text = await response.text()
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert text == (
        'event: hello\ndata: {"from": "test/model"}\n\n'
        'event: word\ndata: {"text": "Good "}\n\n'
        'event: word\ndata: {"text": "day"}\n\n'
    )


async def test_a_silent_stream_has_its_keep_alive(edge: Edge, client: ToyClient) -> None:
    """The keep-alive is an event instead of a comment."""
    pause = Pause()
    edge.script.steps = [pause, WORDS, END]
    async with client.post(LIVE) as response:
        assert await response.content.readuntil(b"\n\n") == b"event: ping\ndata: {}\n\n"
        pause.go_on.set()
        assert b"event: word" in await response.read()


async def test_a_broken_stream_ends_with_its_event(edge: Edge, client: ToyClient) -> None:
    """The event follows the events before the failure."""
    edge.script.steps = [WORDS, CUT]
    async with client.post(LIVE) as response:
        text = await response.text()
    assert response.status == 200
    assert text.endswith('event: failed\ndata: {"why": "The answer broke off."}\n\n')


@pytest.mark.parametrize(
    ("asked", "extra", "status", "code"),
    [
        (SAID, {}, 402, "insufficient_quota"),
        ({}, {}, 400, "invalid_value"),
        (SAID, {"x_toy_version": "2"}, 400, "invalid_value"),
        (SAID, {"x_toy_key": "guessed"}, 401, "invalid_api_key"),
        (SAID, {"x_pomogator_timeout": "soon"}, 400, "invalid_value"),
    ],
)
async def test_a_failure_has_its_body(
    edge: Edge,
    client: ToyClient,
    asked: Mapping[str, object],
    extra: Mapping[str, str],
    status: int,
    code: str,
) -> None:
    """Its headers are there, too, wherever the shared code fails."""
    edge.script.answer = NO_MONEY
    async with client.post(asked, **extra) as response:
        answer = await response.json()
    assert (response.status, response.headers["x-toy-error"]) == (status, code)
    assert set(answer) == {"type", "why", "request"}
    assert answer["request"] == response.headers["x-request-id"]


async def test_a_reason_may_have_its_status(edge: Edge, client: ToyClient) -> None:
    """The toy API has 529 where OpenAI's surface has 503."""
    edge.script.answer = Fault(code=grpc.StatusCode.UNAVAILABLE, reason="OVERLOADED")
    async with client.post(SAID) as response:
        assert (response.status, (await response.json())["type"]) == (OVERLOADED, "error")


async def test_a_client_that_leaves_cancels_the_call(edge: Edge, client: ToyClient) -> None:
    """Every surface does so."""
    pause = Pause()
    edge.script.steps = [WORDS, pause]
    async with client.post(LIVE) as response:
        await pause.reached.wait()
        response.close()
    await asyncio.wait_for(edge.script.cancelled.wait(), 5)


async def test_another_method_has_the_toys_error(client: ToyClient) -> None:
    """Errors before the handler have the form of the path."""
    async with client.http.get(URL) as response:
        assert (response.status, (await response.json())["type"]) == (405, "error")


async def test_the_access_log_names_its_path(
    edge: Edge, client: ToyClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the model, as for every surface."""
    edge.script.answer = service.answer(content.ContentPart(text="Good day"))
    with caplog.at_level(logging.INFO, "gateway.access"):
        async with client.post(SAID) as response:
            assert response.status == 200
    (record,) = [one for one in caplog.records if one.getMessage() == "request.ended"]
    line = vars(record)
    assert (line["path"], line["model"], line["stream"]) == (URL, "test/model", False)


async def test_openais_surface_is_as_before(edge: Edge) -> None:
    """It takes no other key, and answers in OpenAI's form."""
    edge.script.answer = service.answer(content.ContentPart(text="Good day"))
    async with edge.http.post("/v1/chat/completions", json=ASKED) as response:
        assert (await response.json())["object"] == "chat.completion"
    base = f"http://{edge.host}:{edge.port}"
    async with (
        aiohttp.ClientSession(base, headers=HEADERS) as session,
        session.post("/v1/chat/completions", json=ASKED) as response,
    ):
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "invalid_api_key"
