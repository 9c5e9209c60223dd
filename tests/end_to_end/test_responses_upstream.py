"""Models that call tools over OpenAI's Responses alone, behind chat completions of callers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError

from services.config import ChannelConfig, ModelConfig
from tests.stand.dialect_stand import TOOLS
from tests.stand.gateway import Gateway, running
from tests.stand.providers.answers import Answer, call, text, thought
from tests.stand.providers.openai import OpenAi
from tests.stand.providers.openai_responses import OpenAiResponses
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    FakeUpstream,
    Request,
    Script,
    answer,
    chunk,
    event,
    json_answer,
)

Json = dict[str, Any]

MODEL = "openai/gpt-5.6-terra"
QUESTION: Any = {"role": "user", "content": "How warm is it?"}
ASKS = Answer(
    parts=[
        thought("Where?", signature="c2VhbC0x"),
        text("I look."),
        thought("There.", signature="c2VhbC0y"),
        call("call_1", "weather", '{"city": ', '"Bern"}'),
    ],
    stop="tool_calls",
    thinking_tokens=5,
)
ANSWERS = Answer(parts=[text("18 °C.")])
NO_TOOLS_HERE = (
    "Function tools with reasoning_effort are not supported for gpt-5.6-terra in "
    "/v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to "
    "'none'."
)


@dataclass
class OpenAiApi:
    """Both APIs of one provider: chat completions take tools only without reasoning."""

    answers: list[Answer | Script] = field(default_factory=list)
    given: list[Answer] = field(default_factory=list)
    chat_takes_tools: bool = False

    def respond(self, request: Request) -> Script:
        """Answer a request by its path."""
        body = request.json()
        if request.path.endswith("/chat/completions"):
            takes_tools = self.chat_takes_tools or body.get("reasoning_effort") == "none"
            if "tools" in body and not takes_tools:
                error = {"message": NO_TOOLS_HERE, "type": "invalid_request_error"}
                error |= {"param": "reasoning_effort"}
                return [json_answer({"error": error}, 400)]
            return _played(OpenAi(), ANSWERS, body)
        speech = OpenAiResponses()
        if complaint := speech.complaint(body, self.given):
            return [json_answer({"error": {"message": complaint}}, 400)]
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not isinstance(given, Answer):
            return given
        self.given.append(given)
        return _played(speech, given, body)


def _played(speech: OpenAi | OpenAiResponses, answer: Answer, body: Json) -> Script:
    if not body["stream"]:
        return [json_answer(speech.document(answer, body))]
    return [SSE_HEAD, *map(chunk, speech.events(answer, body)), LAST_CHUNK]


@dataclass(frozen=True)
class Stand:
    """A gateway with one channel of dialect `openai`, and the provider behind it."""

    gateway: Gateway
    api: OpenAiApi
    upstream: FakeUpstream
    client: AsyncOpenAI

    @property
    def paths(self) -> Sequence[str]:
        """The last steps of the paths of all requests."""
        return [request.path.rpartition("/")[2] for request in self.upstream.requests]


@asynccontextmanager
async def standing(
    state: Path, responses: Literal["auto", "always", "never"] = "auto", **fields: Any
) -> AsyncIterator[Stand]:
    """A running gateway."""
    api = OpenAiApi()
    async with FakeUpstream() as upstream:
        upstream.play(api.respond)
        channel = ChannelConfig(
            name="openai",
            dialect="openai",
            base_url=upstream.url,
            models={MODEL: "gpt-5.6-terra"},
            responses=responses,
        )
        models = [ModelConfig(name=MODEL, **fields)]
        async with (
            running(state, channel, models=models) as gateway,
            AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, max_retries=0) as client,
        ):
            yield Stand(gateway, api, upstream, client)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """A gateway that chooses the API of each request."""
    async with standing(tmp_path) as stand:
        yield stand


async def message_of(stand: Stand, messages: Sequence[Any], **fields: Any) -> Json:
    """Return the message of an answer."""
    create = stand.client.chat.completions.create
    answer = await create(model=MODEL, messages=messages, tools=TOOLS, **fields)
    found: Json = answer.choices[0].message.to_dict()
    return found


async def test_tools_with_reasoning_go_to_responses(stand: Stand) -> None:
    """The caller gets a chat completion. Requests without tools go to chat completions."""
    stand.api.answers = [ASKS]

    answer = await stand.client.chat.completions.create(
        model=MODEL, messages=[QUESTION], tools=TOOLS, reasoning_effort="high"
    )

    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].id == "call_1"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 34
    assert stand.paths == ["responses"]
    assert stand.upstream.requests[0].json()["reasoning"] == {"effort": "high"}

    await stand.client.chat.completions.create(model=MODEL, messages=[QUESTION])
    assert stand.paths == ["responses", "completions"]


@pytest.mark.parametrize("keeps_state", [True, False])
async def test_a_conversation_goes_on_with_its_reasoning(stand: Stand, keeps_state: bool) -> None:
    """The provider checks that each item stands before what it led to.

    A client that sends nothing back but text and calls gets the reasoning from memory.
    """
    stand.api.answers = [ASKS, ANSWERS]
    first = await message_of(stand, [QUESTION])
    kept = ("role", "content", "tool_calls", *(("reasoning_state",) if keeps_state else ()))
    turn = {name: first[name] for name in kept}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "18"}

    second = await message_of(stand, [QUESTION, turn, result], reasoning_effort="low")

    assert second["content"] == "18 °C."
    sent = stand.upstream.requests[1].json()["input"]
    assert [item["type"] for item in sent] == [
        *("message", "reasoning", "message", "reasoning", "function_call", "function_call_output")
    ]
    assert [item["encrypted_content"] for item in sent if item["type"] == "reasoning"] == [
        *("c2VhbC0x", "c2VhbC0y")
    ]


async def test_a_channel_without_responses_turns_reasoning_off(tmp_path: Path) -> None:
    """There is a note, and a strict request is refused."""
    async with standing(tmp_path, "never") as stand:
        create = stand.client.chat.completions.with_raw_response.create
        answer = await create(model=MODEL, messages=[QUESTION], tools=TOOLS)

        notes = json.loads(answer.headers["x-pomogator-notes"])
        assert [note["param"] for note in notes] == ["thinking"]
        assert stand.paths == ["completions"]
        with pytest.raises(BadRequestError):
            await create(
                model=MODEL,
                messages=[QUESTION],
                tools=TOOLS,
                extra_headers={"x-pomogator-mode": "strict"},
            )


async def test_a_channel_may_always_use_responses(tmp_path: Path) -> None:
    """Requests without tools use them, too."""
    async with standing(tmp_path, "always") as stand:
        stand.api.answers = [ANSWERS]
        answer = await stand.client.chat.completions.create(model=MODEL, messages=[QUESTION])

        assert answer.choices[0].message.content == "18 °C."
        assert stand.paths == ["responses"]


BEGUN = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}
PIECE = {"type": "response.output_text.delta", "output_index": 0, "delta": "Wel"}
LIMITED = {"code": "rate_limit_exceeded", "message": "Try again in 2s."}
FAILED = {"type": "response.failed", "response": {"status": "failed", "error": LIMITED}}
ERROR = {"type": "error", "code": "server_error", "message": "It failed."}
ENDINGS: Mapping[str, tuple[Sequence[Json], int, str]] = {
    "failed": ([BEGUN, FAILED], 429, "upstream_rate_limited"),
    "error": ([BEGUN, ERROR], 502, "upstream_error"),
    "cut": ([BEGUN], 502, "upstream_disconnected"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_failures_before_the_answer_have_their_status(stand: Stand, ending: str) -> None:
    """After a piece of text the stream ends with the error."""
    events, status, code = ENDINGS[ending]
    end = CUT if ending == "cut" else LAST_CHUNK
    script = [SSE_HEAD, *(chunk(event(each, str(each["type"]))) for each in events), end]
    stand.api.answers = [script]
    body = {"model": MODEL, "messages": [QUESTION], "tools": TOOLS, "stream": True}
    url = f"{stand.gateway.base_url}/chat/completions"

    async with stand.gateway.http.post(url, json=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == code

    script.insert(2, chunk(event(PIECE, str(PIECE["type"]))))
    async with stand.gateway.http.post(url, json=body) as answer:
        assert answer.status == 200
        text_of_stream = await answer.text()
    assert '"Wel"' in text_of_stream
    assert code in text_of_stream
    assert '"finish_reason":"stop"' not in text_of_stream


MISSING: Sequence[Script] = [
    [json_answer({"detail": "Not Found"}, 404)],
    [json_answer({"error": {"code": 404, "message": "File Not Found"}}, 404)],
    [json_answer({"error": {"message": "Invalid URL (POST /v1/responses)", "code": None}}, 404)],
    [answer(b"404 page not found", 404)],
    [json_answer({"detail": "Method Not Allowed"}, 405)],
]
"""Answers of servers without Responses."""


@pytest.mark.parametrize("script", MISSING)
async def test_a_server_without_responses_gets_chat_completions(
    stand: Stand, script: Script
) -> None:
    """At once, and from then on without another try. Each answer has a note."""
    stand.api.answers, stand.api.chat_takes_tools = [script], True
    for paths in (["responses", "completions"], ["completions"]):
        stand.upstream.requests.clear()
        raw = await stand.client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[QUESTION], tools=TOOLS
        )
        assert raw.parse().choices[0].message.content == "18 °C."
        assert stand.paths == paths
        assert "the provider has no Responses" in raw.headers["x-pomogator-notes"]


async def test_a_channel_that_wants_responses_alone_gets_nothing_else(tmp_path: Path) -> None:
    """The caller is told that the provider failed."""
    async with standing(tmp_path, "always") as stand:
        stand.api.answers = [MISSING[0]]
        with pytest.raises(APIStatusError):
            await message_of(stand, [QUESTION])
        assert stand.paths == ["responses"]


@pytest.mark.parametrize(
    "error",
    [
        {"message": "The model `gpt-5.6-terra` does not exist", "code": "model_not_found"},
        {"message": "Item with id 'rs_1' not found.", "code": None},
        {"message": "Vector store 'vs_1' not found.", "type": "invalid_request_error"},
    ],
)
async def test_another_thing_that_is_missing_is_no_missing_api(stand: Stand, error: Json) -> None:
    """Chat completions would not have the model, item or file either."""
    stand.api.answers = [[json_answer({"error": error}, 404)]]
    with pytest.raises(APIStatusError):
        await message_of(stand, [QUESTION])
    assert stand.paths == ["responses"]
