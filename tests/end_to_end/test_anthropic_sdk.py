"""Programs with Anthropic's Python SDK, over each dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, ModelInfo, RawMessageStreamEvent
from pydantic import TypeAdapter

from services.providers.count_endpoints import COUNT_ENDPOINTS
from tests.stand.dialect_stand import MODEL, THINKING, DialectStand
from tests.stand.providers.answers import Answer, Part, Redacted, Refused, call, text, thought

MESSAGES: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
GREETING = Answer(parts=[text("При", "вет", "! 🌍")])
REASONED = Answer(
    parts=[thought("Two", " and two."), Redacted("c2VjcmV0"), text("It", " is 4")],
    completion_tokens=30,
    thinking_tokens=17,
)
CALLS = Answer(
    parts=[
        text("Let me see."),
        call("toolu_01", "weather", '{"city": ', '"Oslo"}'),
        call("toolu_02", "clock", "{}"),
    ],
    stop="tool_calls",
)
TOOLS: list[Any] = [
    {
        "name": name,
        "description": description,
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    for name, description in (("weather", "The weather in a city."), ("clock", "The time."))
]
ENABLED: Any = {"type": "enabled", "budget_tokens": 2_048}

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@pytest.fixture
async def claude(stand: DialectStand) -> AsyncIterator[AsyncAnthropic]:
    """The official SDK, as a user sets it up."""
    async with AsyncAnthropic(
        api_key=stand.gateway.key, base_url=stand.gateway.url, max_retries=0
    ) as client:
        yield client


async def _create(client: AsyncAnthropic, **fields: Any) -> Message:
    request: Any = {"model": MODEL, "max_tokens": 4_096, "messages": MESSAGES} | fields
    message: Message = await client.messages.create(**request)
    Message.model_validate(message.model_dump(), strict=False)
    return message


async def _stream(client: AsyncAnthropic, **fields: Any) -> tuple[list[Any], Message]:
    """The events of a stream, each checked by the SDK's types, and the message that they make."""
    request: Any = {"model": MODEL, "max_tokens": 4_096, "messages": MESSAGES} | fields
    raw = [event async for event in await client.messages.create(**request, stream=True)]
    for event in raw:
        EVENTS.validate_python(event.model_dump())
    async with client.messages.stream(**request) as stream:
        return raw, await stream.get_final_message()


async def test_a_whole_answer_has_text_reason_and_tokens(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """They are those of the provider."""
    stand.provider.say(GREETING)

    message = await _create(claude)

    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert [(block.type, block.text) for block in message.content if block.type == "text"] == [
        ("text", "Привет! 🌍")
    ]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (21, 13)
    assert message._request_id is not None
    assert message._request_id.startswith("req-")


async def test_a_stream_has_anthropics_events_in_order(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """Its events make the same message as the whole answer."""
    stand.provider.say(GREETING)

    events, message = await _stream(claude)

    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert message.content[0].model_dump()["text"] == "Привет! 🌍"
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 13
    assert message.usage.input_tokens == 21


async def test_reasoning_is_a_block_before_the_text(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """It is there whole and streamed. Its seal comes back unchanged."""
    stand.provider.say(REASONED)
    whole = await _create(claude, model=THINKING, thinking=ENABLED)
    _, streamed = await _stream(claude, model=THINKING, thinking=ENABLED)

    for message in (whole, streamed):
        kinds = [block.type for block in message.content]
        assert kinds[0] == "thinking"
        assert kinds[-1] == "text"
        assert message.content[0].model_dump()["thinking"] == "Two and two."
        details = message.usage.output_tokens_details
        assert details is None or details.thinking_tokens == 17
    assert [block.model_dump() for block in whole.content] == [
        block.model_dump() for block in streamed.content
    ]

    turns = [*MESSAGES, {"role": "assistant", "content": whole.content}, *MESSAGES]
    await _create(claude, model=THINKING, thinking=ENABLED, messages=turns)

    body = stand.provider.bodies[-1]
    sent = (body.get("messages") or body["input"])[1]
    if stand.dialect == "openai-responses":
        assert sent["encrypted_content"] == "c2lnbmVk"
    if stand.dialect == "anthropic":
        assert sent["content"][:2] == [
            {"type": "thinking", "thinking": "Two and two.", "signature": "c2lnbmVk"},
            {"type": "redacted_thinking", "data": "c2VjcmV0"},
        ]
    if stand.dialect == "openrouter":
        (first, *_) = sent["reasoning_details"]
        assert (first["text"], first["signature"]) == ("Two and two.", "c2lnbmVk")


async def test_parallel_calls_are_blocks_of_their_own(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """Their results reach the provider."""
    stand.provider.say(CALLS)
    whole = await _create(claude, tools=TOOLS)
    events, streamed = await _stream(claude, tools=TOOLS)

    for message in (whole, streamed):
        assert message.stop_reason == "tool_use"
        assert [
            (block.id, block.name, block.input)
            for block in message.content
            if block.type == "tool_use"
        ] == [("toolu_01", "weather", {"city": "Oslo"}), ("toolu_02", "clock", {})]
    starts = [event.index for event in events if event.type == "content_block_start"]
    assert starts == [0, 1, 2]

    results = [
        {"type": "tool_result", "tool_use_id": "toolu_01", "content": "18 °C"},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_02",
            "content": [{"type": "text", "text": "12:00"}],
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "text", "text": "Thanks."},
    ]
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": results},
    ]
    stand.provider.say(GREETING)
    await _create(claude, tools=TOOLS, messages=turns)

    sent = str(stand.provider.bodies[-1])
    assert sent.index("18 °C") < sent.index("12:00") < sent.index("Thanks.")


async def test_an_invalid_key_is_an_authentication_error(stand: DialectStand) -> None:
    """Either header may carry the key."""
    wrong = stand.gateway.key[:-4] + "0000"
    for options in ({"api_key": wrong}, {"auth_token": wrong}):
        client = AsyncAnthropic(base_url=stand.gateway.url, max_retries=0, **options)  # type: ignore[arg-type]
        async with client:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                await _create(client)
        assert refused.value.response.json()["error"]["type"] == "authentication_error"


async def test_a_key_is_accepted_in_authorization(stand: DialectStand) -> None:
    """Anthropic's own header is `x-api-key`."""
    stand.provider.say(GREETING)
    async with AsyncAnthropic(auth_token=stand.gateway.key, base_url=stand.gateway.url) as client:
        assert (await _create(client)).stop_reason == "end_turn"


async def test_an_unknown_model_is_an_invalid_request(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """No provider is asked."""
    with pytest.raises(anthropic.BadRequestError) as refused:
        await _create(claude, model="house/none")
    body = refused.value.response.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["request_id"] == refused.value.request_id
    assert stand.provider.bodies == []


async def test_an_overloaded_provider_is_529(stand: DialectStand, claude: AsyncAnthropic) -> None:
    """It is Anthropic's status for that."""
    stand.provider.say(Refused(status=503, kind="overloaded_error", message="Busy."))
    with pytest.raises(anthropic.InternalServerError) as refused:
        await _create(claude)
    assert refused.value.status_code == 529
    assert refused.value.response.json()["error"]["type"] == "overloaded_error"


async def test_a_broken_stream_ends_with_an_error_event(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """The SDK raises it."""
    stand.provider.say(Answer(parts=[text("Half")], breaks_off="cut"))
    with pytest.raises(anthropic.APIStatusError) as broken:
        await _stream(claude)
    assert "error" in str(broken.value)


async def test_the_start_of_a_stream_has_the_tokens_of_the_prompt(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """They are the provider's, or else an estimate."""
    stand.provider.say(GREETING)
    events, _ = await _stream(claude)
    usage = events[0].message.usage
    assert usage.input_tokens == 21 if stand.dialect == "anthropic" else usage.input_tokens > 0
    assert usage.output_tokens == (1 if stand.dialect == "anthropic" else 0)


async def test_a_longer_prompt_has_more_tokens(stand: DialectStand, claude: AsyncAnthropic) -> None:
    """Only providers with an endpoint for counts are asked."""
    stand.provider.say(GREETING)
    short = await claude.messages.count_tokens(model=MODEL, messages=MESSAGES)
    long = await claude.messages.count_tokens(
        model=MODEL, messages=MESSAGES * 3, tools=TOOLS, system="Be brief."
    )
    assert 0 < short.input_tokens < long.input_tokens
    endpoint = COUNT_ENDPOINTS.get(stand.dialect)
    paths = [request.path for request in stand.provider.requests]
    assert paths == [f"/v1{endpoint.path}"] * 2 if endpoint else paths == []
    with pytest.raises(anthropic.BadRequestError):
        await claude.messages.count_tokens(model="house/none", messages=MESSAGES)


async def test_the_model_learns_that_a_tool_failed(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """The result has `is_error`."""
    stand.provider.say(GREETING)
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no", "is_error": True}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    await _create(claude, tools=TOOLS, messages=turns)
    body = stand.provider.bodies[-1]
    sent = (body.get("messages") or body["input"])[-1]
    if stand.dialect == "anthropic":
        assert sent["content"][0]["is_error"] is True
    else:
        assert sent.get("content", sent.get("output")) == "Error: no"


async def test_models_are_listed_in_pages(stand: DialectStand, claude: AsyncAnthropic) -> None:
    """The form is Anthropic's, and the SDK reads all pages."""
    listed = [model async for model in claude.models.list(limit=1)]
    assert [model.id for model in listed] == [MODEL, THINKING]
    for model in listed:
        ModelInfo.model_validate(model.model_dump())
        assert model.created_at.year > 2000
    backwards = await claude.models.list(before_id=THINKING)
    assert [model.id for model in backwards.data] == [MODEL]
    assert not backwards.has_more
    assert (await claude.models.retrieve(MODEL)).type == "model"
    with pytest.raises(anthropic.NotFoundError) as refused:
        await claude.models.retrieve("house/none")
    assert refused.value.response.json()["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        await claude.models.list(limit=0)


async def test_models_of_other_clients_have_openais_form(stand: DialectStand) -> None:
    """They do not send Anthropic's header."""
    async with stand.gateway.http.get(f"{stand.gateway.url}/v1/models") as response:
        assert (await response.json())["object"] == "list"


async def test_an_unknown_path_is_refused_in_anthropics_form(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """Batches are not served."""
    with pytest.raises(anthropic.NotFoundError) as refused:
        await claude.messages.batches.list()
    assert refused.value.response.json()["type"] == "error"
    async with stand.gateway.http.head(stand.gateway.url) as response:
        assert response.status == 200


async def test_reasoning_between_texts_keeps_its_place(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """It stays between text and call, streamed, whole and sent back."""
    parts: list[Part] = [
        thought("One.", signature="b25l"),
        text("First."),
        thought("Two.", signature="dHdv"),
        call("toolu_01", "weather", "{}"),
    ]
    stand.provider.say(Answer(parts=parts, stop="tool_calls"))
    asked: Any = {"model": THINKING, "thinking": ENABLED, "tools": TOOLS}
    whole = await _create(claude, **asked)
    _, streamed = await _stream(claude, **asked)
    if stand.dialect != "anthropic":
        return
    kinds = ["thinking", "text", "thinking", "tool_use"]
    assert [block.type for block in whole.content] == kinds
    assert [block.type for block in streamed.content] == kinds

    result = {"type": "tool_result", "tool_use_id": "toolu_01", "content": "18"}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": [result]},
    ]
    await _create(claude, **asked, messages=turns)
    sent = stand.provider.bodies[-1]["messages"][1]["content"]
    assert [block["type"] for block in sent] == kinds
    assert [block.get("signature") for block in sent] == ["b25l", None, "dHdv", None]


async def test_blocks_of_the_providers_tools_come_back(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """Anthropic gets them as they are; elsewhere they have a note."""
    stand.provider.say(GREETING)
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    turns: Any = [
        *MESSAGES,
        {"role": "assistant", "content": [use, found, {"type": "text", "text": "Rain."}]},
        *MESSAGES,
    ]
    raw = await claude.messages.with_raw_response.create(model=MODEL, max_tokens=64, messages=turns)
    body = stand.provider.bodies[-1]
    sent = (body.get("messages") or body["input"])[1]["content"]
    if stand.dialect == "anthropic":
        assert sent[:2] == [use, found]
    else:
        assert sent == "Rain." or [part["text"] for part in sent] == ["Rain."]
        assert "tools that Anthropic has run" in raw.headers["x-pomogator-notes"]


async def test_betas_reach_anthropic(stand: DialectStand, claude: AsyncAnthropic) -> None:
    """Their members do, too. Elsewhere they have notes."""
    stand.provider.say(GREETING)
    tools: Any = [{**TOOLS[0], "eager_input_streaming": True}]
    managed = {"edits": [{"type": "clear_thinking_20251015"}]}
    raw = await claude.messages.with_raw_response.create(
        model=MODEL,
        max_tokens=64,
        messages=MESSAGES,
        tools=tools,
        extra_headers={
            "anthropic-beta": "context-management-2025-06-27, context-1m-2025-08-07",
        },
        extra_body={"context_management": managed},
    )
    request = stand.provider.requests[-1]
    if stand.dialect == "anthropic":
        sent = "context-management-2025-06-27, context-1m-2025-08-07"
        assert request.headers["anthropic-beta"] == sent
        assert request.json()["context_management"] == managed
        assert request.json()["tools"][0]["eager_input_streaming"] is True
        assert "x-pomogator-notes" not in raw.headers
    else:
        notes = raw.headers["x-pomogator-notes"]
        assert "anthropic-beta" not in request.headers
        assert "betas" in notes
        assert "context_management" in notes


async def test_stop_sequences_beyond_four_have_a_note(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """Anthropic gets them all; other providers get the first four."""
    stand.provider.say(GREETING)
    stops = ["END", "STOP", "HALT", "FIN", "QUIT"]
    raw = await claude.messages.with_raw_response.create(
        model=MODEL, max_tokens=64, messages=MESSAGES, stop_sequences=stops
    )
    body = stand.provider.bodies[-1]
    if stand.dialect == "anthropic":
        assert body["stop_sequences"] == stops
    else:
        assert body.get("stop", stops[:4]) == stops[:4]
        assert "stop" in raw.headers["x-pomogator-notes"]


async def test_cited_documents_are_files_elsewhere(
    stand: DialectStand, claude: AsyncAnthropic
) -> None:
    """Anthropic gets them to cite from; elsewhere a note names the citations."""
    stand.provider.say(GREETING)
    cited = [{"type": "char_location", "cited_text": "High", "document_index": 0}]
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "High tide at noon."},
        "title": "tides",
        "citations": {"enabled": True},
    }
    turns: Any = [
        {"role": "user", "content": [document]},
        {"role": "assistant", "content": [{"type": "text", "text": "High.", "citations": cited}]},
        *MESSAGES,
    ]
    raw = await claude.messages.with_raw_response.create(model=MODEL, max_tokens=64, messages=turns)
    body = stand.provider.bodies[-1]
    first, second, *_ = body.get("messages") or body["input"]
    if stand.dialect == "anthropic":
        assert first["content"] == [document]
        assert second["content"][0]["citations"] == cited
        assert "x-pomogator-notes" not in raw.headers
    else:
        (file,) = first["content"]
        assert file.get("file", file)["filename"] == "tides"
        assert "citations" in raw.headers["x-pomogator-notes"]
