from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content

from gateway.config import EdgeConfig
from tests.gateway.conftest import KEY, Edge
from tests.stand import service
from tests.stand.service import Fault, Pause

URL = "/v1/chat/completions"
ASKED: Mapping[str, object] = {
    "model": "test/model",
    "messages": [{"role": "user", "content": "Привет!"}],
}
STREAMED = {**ASKED, "stream": True}
C = grpc.StatusCode
NO_MONEY = Fault(
    code=C.FAILED_PRECONDITION, reason="INSUFFICIENT_QUOTA", message="Insufficient balance"
)
CUT = Fault(code=C.UNAVAILABLE, reason="UPSTREAM_DISCONNECTED", message="The answer broke off.")


def events(body: str) -> list[str]:
    """Return the data of each event, in order, and check that all lines are data or comments."""
    lines = [line for line in body.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [line.removeprefix("data: ") for line in lines]


async def test_a_whole_answer_has_the_shape_of_the_api_page(edge: Edge) -> None:
    """Each field of the documented example is there, with its value."""
    edge.script.answer = service.answer(content.ContentPart(text="Чем могу помочь?"))
    async with edge.http.post(URL, json=ASKED) as response:
        body = await response.json()
    assert response.status == 200
    assert {name: body[name] for name in ("id", "object", "created", "model")} == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": service.CREATED,
        "model": "test/model",
    }
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "Чем могу помочь?"
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 37


async def test_a_stream_is_role_deltas_finish_done(edge: Edge) -> None:
    """The events are those of the documented example, and nothing follows `[DONE]`."""
    edge.script.steps = [
        [service.started(), service.text("При")],
        [service.text("вет"), service.choice_finished(), service.finished()],
    ]
    async with edge.http.post(URL, json=STREAMED) as response:
        body = await response.text()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    *chunks, done = events(body)
    assert done == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "При"},
        {"content": "вет"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]


@pytest.mark.parametrize("asked", [ASKED, STREAMED], ids=["whole", "stream"])
async def test_a_failure_before_the_answer_has_its_status(
    edge: Edge, asked: Mapping[str, object]
) -> None:
    """Whole answers and streams have OpenAI's error body."""
    edge.script.answer = NO_MONEY
    edge.script.steps = [NO_MONEY]
    async with edge.http.post(URL, json=asked) as response:
        body = await response.json()
    assert response.status == 402
    assert response.headers["x-should-retry"] == "false"
    assert body["error"] == {
        "message": "Insufficient balance",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }


async def test_a_failure_within_the_answer_is_an_event(edge: Edge) -> None:
    """It has nothing but the error, and `[DONE]` follows. No finish reason is invented."""
    edge.script.steps = [[service.started(), service.text("a")], CUT]
    async with edge.http.post(URL, json=STREAMED) as response:
        *chunks, last, done = events(await response.text())
    assert response.status == 200
    assert done == "[DONE]"
    assert json.loads(last) == {
        "error": {
            "message": "The answer broke off.",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_disconnected",
        },
    }
    assert all(json.loads(chunk)["choices"][0]["finish_reason"] is None for chunk in chunks)


async def test_a_stream_that_ends_without_finishing_is_an_error(edge: Edge) -> None:
    """Otherwise clients would take it for a whole answer."""
    edge.script.steps = [[service.started(), service.text("a")]]
    async with edge.http.post(URL, json=STREAMED) as response:
        *_, last, done = events(await response.text())
    assert json.loads(last)["error"]["code"] == "internal_error"
    assert done == "[DONE]"


async def test_an_empty_stream_is_an_error_with_a_status(edge: Edge) -> None:
    """The status is 500, since nothing was sent."""
    edge.script.steps = []
    async with edge.http.post(URL, json=STREAMED) as response:
        body = await response.json()
    assert (response.status, body["error"]["code"]) == (500, "internal_error")


async def test_usage_is_included_on_request(edge: Edge) -> None:
    """Every chunk has the member, and an extra last chunk the numbers."""
    edge.script.steps = [[service.started(), service.choice_finished(), service.finished()]]
    asked = {**STREAMED, "stream_options": {"include_usage": True}}
    async with edge.http.post(URL, json=asked) as response:
        *chunks, last, _ = [json.loads(event) for event in events(await response.text())[:-1]] + [
            None
        ]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12


async def test_thinking_models_answer_with_parts(edge: Edge) -> None:
    """The requested name ends in `-thinking`, and the client asks for neither text nor JSON."""
    edge.script.answer = service.answer(
        content.ContentPart(reasoning=content.ReasoningPart(text="Думаю...")),
        content.ContentPart(text="x = 4"),
        took=service.usage(15, 120, 85),
    )
    asked = {**ASKED, "model": "test/model-thinking"}
    async with edge.http.post(URL, json=asked) as response:
        body = await response.json()
    message = body["choices"][0]["message"]
    assert message["content"] == [
        {"type": "thinking", "thinking": "Думаю..."},
        {"type": "text", "text": "x = 4"},
    ]
    assert message["reasoning_content"] == "Думаю..."
    assert body["usage"]["thinking_tokens"] == 85
    async with edge.http.post(URL, json=asked, headers={"x-pomogator-content": "text"}) as response:
        body = await response.json()
    assert body["choices"][0]["message"]["content"] == "x = 4"
    asked |= {"response_format": {"type": "json_object"}}
    async with edge.http.post(URL, json=asked) as response:
        body = await response.json()
    assert body["choices"][0]["message"]["content"] == "x = 4"


async def test_notes_and_limits_are_headers(edge: Edge) -> None:
    """Streams and whole answers have them. Other metadata is not shown."""
    note = chat.Note(param="top_k", action=chat.NOTE_ACTION_DROPPED, detail="Нет такого.")
    whole = service.answer()
    whole.notes.append(note)
    edge.script.answer = whole
    edge.script.steps = [
        [service.started(notes=[note])],
        [service.choice_finished(), service.finished()],
    ]
    edge.script.initial_metadata = [("x-ratelimit-limit-requests", "60"), ("x-secret", "s")]
    for asked in (ASKED, STREAMED):
        async with edge.http.post(URL, json=asked) as response:
            await response.read()
        assert json.loads(response.headers["x-pomogator-notes"]) == [
            {"param": "top_k", "action": "dropped", "detail": "Нет такого."}
        ]
        assert response.headers["x-ratelimit-limit-requests"] == "60"
        assert "x-secret" not in response.headers


async def test_only_known_headers_reach_the_service(edge: Edge) -> None:
    """They are key, request ID, trace, idempotency key, policy and deadline."""
    edge.script.answer = service.answer()
    headers = {
        "X-Request-Id": "mine-1",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "Idempotency-Key": "once",
        "x-pomogator-mode": "strict",
        "x-pomogator-timeout": "30",
        "x-internal-user": "root",
        "X-Forwarded-For": "1.2.3.4",
        "Cookie": "a=b",
    }
    async with edge.http.post(URL, json=ASKED, headers=headers) as response:
        assert response.headers["x-request-id"] == "mine-1"
    (seen,) = edge.script.metadata
    assert seen.get("x-pomogator-surface", "chat") == "chat"
    own = {"user-agent", "x-pomogator-surface"}
    assert {name: value for name, value in seen.items() if name not in own} == {
        "authorization": f"Bearer {KEY}",
        "x-request-id": "mine-1",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "idempotency-key": "once",
        "x-pomogator-timeout": "30.0",
    }
    assert edge.script.policies == [chat.PARAMETER_POLICY_STRICT]
    (left,) = edge.script.deadlines_s
    assert left is not None
    assert 0 < left < 31  # gRPC rounds up on the wire


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic abc",
        "Bearer",
        "Bearer ",
        "Bearer sk-other",
        f"Bearer {KEY} x",
        f"Bearer {'a' * 8000}",
    ],
)
async def test_without_a_key_there_is_no_call(edge: Edge, authorization: str) -> None:
    """The answer is 401, and the service gets no call."""
    headers = {"Authorization": authorization}
    async with edge.http.post(URL, json=ASKED, headers=headers) as response:
        body = await response.json()
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert body["error"] == {
        "message": "Invalid API key: the header does not have the form of a key. "
        "Send one key in the header `Authorization: Bearer sk-pg-...`.",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert edge.script.specs == []


async def test_the_scheme_may_be_written_in_lower_case(edge: Edge) -> None:
    """RFC 9110: schemes have no case."""
    edge.script.answer = service.answer()
    headers = {"Authorization": f"bearer  {KEY}"}
    async with edge.http.post(URL, json=ASKED, headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("asked", [ASKED, STREAMED], ids=["whole", "stream"])
async def test_a_client_that_leaves_before_the_answer_cancels_the_call(
    edge: Edge, asked: Mapping[str, object]
) -> None:
    """The answer would be whole or a stream."""
    pause = Pause()
    edge.script.answer = pause
    edge.script.steps = [pause]
    request = asyncio.ensure_future(edge.http.post(URL, json=asked))
    await pause.reached.wait()
    request.cancel()
    await asyncio.wait_for(edge.script.cancelled.wait(), 5)


async def test_a_client_that_leaves_within_the_answer_cancels_the_call(edge: Edge) -> None:
    """It disconnects after the first event."""
    pause = Pause()
    edge.script.steps = [[service.started()], pause]
    async with edge.http.post(URL, json=STREAMED) as response:
        await response.content.readline()
        await pause.reached.wait()
        response.close()
    await asyncio.wait_for(edge.script.cancelled.wait(), 5)


class TestSilence:
    """Streams of a service that is slow."""

    @pytest.fixture
    def config(self) -> EdgeConfig:
        """An edge that sends keep-alives soon."""
        return EdgeConfig(first_event_wait_s=0.02, keep_alive_s=0.02, drain_timeout_s=0.1)

    async def test_keep_alives_fill_it(self, edge: Edge) -> None:
        """Before the first event and between events; the events are the same."""
        first, second = Pause(), Pause()
        edge.script.steps = [
            first,
            [service.started(), service.text("a")],
            second,
            [service.choice_finished(), service.finished()],
        ]
        async with edge.http.post(URL, json=STREAMED) as response:
            assert response.status == 200
            for pause in (first, second):
                while await response.content.readline() != b": keep-alive\n":
                    pass
                pause.go_on.set()
            rest = await response.text()
        assert events(rest[rest.index("data:") :])[-1] == "[DONE]"

    async def test_the_first_keep_alive_commits_to_status_200(self, edge: Edge) -> None:
        """A failure after it is an event of the stream."""
        pause = Pause()
        edge.script.steps = [pause, CUT]
        async with edge.http.post(URL, json=STREAMED) as response:
            await response.content.readline()
            pause.go_on.set()
            rest = await response.text()
        last, done = events(rest[rest.index("data:") :])
        assert json.loads(last)["error"]["code"] == "upstream_disconnected"
        assert done == "[DONE]"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_session_of_a_request_reaches_the_service(
    edge: Edge, path: str, stream: bool
) -> None:
    """Headers of any API name it, or else the body. No session is invented."""
    edge.script.answer = service.answer(content.ContentPart(text="Hello"))
    edge.script.steps = [[service.started(), service.choice_finished(), service.finished()]]
    asked = {**ASKED, "stream": stream, "max_tokens": 9}
    by_body: Mapping[str, object] = (
        {"prompt_cache_key": "s-4"}
        if path.endswith("completions")
        else {"metadata": {"user_id": '{"session_id": "s-4"}'}}
    )
    for headers in ({"X-Session-Id": "s-1"}, {"x-claude-code-session-id": "s-2"}, {}):
        async with edge.http.post(path, json={**asked, **by_body}, headers=headers) as response:
            await response.read()
            assert response.status == 200
    async with edge.http.post(path, json=asked) as response:
        await response.read()

    assert edge.script.sessions == ["s-1", "s-2", "s-4", ""]
