"""Programs with OpenAI's Python SDK that use Responses, over each dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from services.providers.count_endpoints import COUNT_ENDPOINTS
from tests.stand.dialect_stand import MODEL, DialectStand
from tests.stand.providers.answers import Answer, Refused, call, text, thought
from tests.stand.response_events import check_response, read_response_events

GREETING = Answer(parts=[text("High ", "tide.")])
ASKS = Answer(
    parts=[
        thought("I have", " to look."),
        text("Let me look."),
        call("call_1", "weather", '{"city"', ': "Oslo"}'),
    ],
    stop="tool_calls",
)
TOOLS: Any = [
    {
        "type": "function",
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    },
]


async def test_a_whole_answer_has_text_and_usage(stand: DialectStand, client: AsyncOpenAI) -> None:
    """It repeats fields of the request."""
    stand.provider.say(GREETING)

    response = await client.responses.create(
        model=MODEL, instructions="Be brief.", input="The tide?", max_output_tokens=900
    )

    assert response.output_text == "High tide."
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (21, 13)
    assert (response.instructions, response.max_output_tokens) == ("Be brief.", 900)
    assert response.store is False  # type: ignore[attr-defined]
    check_response(json.loads(response.model_dump_json()))
    assert "Be brief." in str(stand.provider.bodies[-1])


async def test_the_sdks_helper_reads_a_stream(stand: DialectStand, client: AsyncOpenAI) -> None:
    """The SDK's helper puts the events together."""
    stand.provider.say(GREETING)

    async with client.responses.stream(model=MODEL, input="The tide?") as stream:
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()

    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert response.output_text == "High tide."


async def test_a_tool_round_keeps_the_providers_turn(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """Items come back, among them reasoning with its seal."""
    stand.provider.say(ASKS, GREETING)
    include: Any = ["reasoning.encrypted_content"]
    options: Any = {"model": MODEL, "tools": TOOLS, "store": False, "include": include}
    items: Any = [{"role": "user", "content": "The weather?"}]

    async with client.responses.stream(
        **options, input=items, reasoning={"summary": "auto"}
    ) as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()
    items += [item.model_dump(exclude_none=True) for item in response.output]
    asked = response.output[-1]
    assert isinstance(asked, ResponseFunctionToolCall)
    items.append({"type": "function_call_output", "call_id": asked.call_id, "output": "18 °C"})
    second = await client.responses.create(**options, input=items)

    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert json.loads(asked.arguments) == {"city": "Oslo"}
    assert second.output_text == "High tide."
    sent = json.dumps(stand.provider.bodies[-1], ensure_ascii=False)
    assert "18 °C" in sent
    assert ("c2lnbmVk" in sent) == stand.is_signed


class City(BaseModel):
    """A form of answers."""

    name: str
    people: int


async def test_parsed_answers(stand: DialectStand, client: AsyncOpenAI) -> None:
    """The SDK's `parse` finds an object of the caller's type."""
    stand.provider.say(Answer(parts=[text('{"name": "Oslo", ', '"people": 700000}')]))

    response = await client.responses.parse(model=MODEL, input="A city.", text_format=City)

    assert response.output_parsed == City(name="Oslo", people=700_000)
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"


async def test_each_event_has_the_form_of_the_api(stand: DialectStand) -> None:
    """The sockets are real."""
    stand.provider.say(ASKS)
    body = {
        "model": MODEL,
        "input": "The weather?",
        "tools": TOOLS,
        "stream": True,
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    headers = {"Authorization": f"Bearer {stand.gateway.key}"}
    url = f"{stand.gateway.base_url}/responses"
    async with stand.gateway.http.post(url, json=body, headers=headers) as answer:
        events = read_response_events((await answer.read()).decode())

    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert events[-1]["response"]["tools"] == TOOLS
    shown = output[0]["summary"] or output[0]["content"]
    assert shown[0]["text"] == "I have to look."


async def test_a_longer_prompt_has_more_tokens(stand: DialectStand, client: AsyncOpenAI) -> None:
    """Providers that count are asked."""
    counts = [
        (await client.responses.input_tokens.count(model=MODEL, input=given)).input_tokens
        for given in ("Hi.", "Hi. " * 50)
    ]
    assert 0 < counts[0] < counts[1]
    assert bool(stand.provider.bodies) is (stand.dialect in COUNT_ENDPOINTS)


async def test_hosted_tools_are_only_offered(stand: DialectStand, client: AsyncOpenAI) -> None:
    """They have a note. A request that demands one is refused."""
    stand.provider.say(GREETING)
    hosted: Any = [*TOOLS, {"type": "file_search", "vector_store_ids": ["vs_1"]}]
    raw = await client.responses.with_raw_response.create(
        model=MODEL, input="The tide?", tools=hosted, store=True
    )
    notes = raw.headers["x-pomogator-notes"]
    assert "tools[1]" in notes
    assert "store" in notes
    raw = await client.responses.with_raw_response.create(
        model=MODEL, input=[{"role": "user", "content": "The tide?", "phase": "commentary"}]
    )
    if stand.dialect == "openai-responses":
        assert "x-pomogator-notes" not in raw.headers
    else:
        assert json.loads(raw.headers["x-pomogator-notes"])[0]["param"] == "input"
    choice: Any = {"type": "file_search"}
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(
            model=MODEL, input="The tide?", tools=hosted, tool_choice=choice
        )
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "tool_choice")
    assert len(stand.provider.bodies) == 2


async def test_namespaces_are_flat_for_providers(stand: DialectStand, client: AsyncOpenAI) -> None:
    """The client sees both parts. OpenAI has namespaces itself."""
    stand.provider.say(Answer(parts=[call("call_1", "home__weather", "{}")], stop="tool_calls"))
    space: Any = [{"type": "namespace", "name": "home", "description": "Home.", "tools": TOOLS}]
    response = await client.responses.create(model=MODEL, input="The weather?", tools=space)
    if stand.dialect == "openai-responses":
        assert stand.provider.bodies[-1]["tools"] == space
        return
    assert "home__weather" in json.dumps(stand.provider.bodies[-1])
    (asked,) = [item for item in response.output if item.type == "function_call"]
    assert (asked.namespace, asked.name) == ("home", "weather")


@pytest.mark.parametrize("broken", ["cut", "error"])
async def test_a_broken_stream_ends_with_response_failed(
    stand: DialectStand, client: AsyncOpenAI, broken: Any
) -> None:
    """It ends with `response.failed`."""
    stand.provider.say(Answer(parts=[text("High")], breaks_off=broken))
    stream = await client.responses.create(model=MODEL, input="The tide?", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "server_error"


async def test_an_incomplete_answer_has_its_reason(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """It says why."""
    stand.provider.say(Answer(parts=[text("High")], stop="length"))
    response = await client.responses.create(model=MODEL, input="The tide?")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("streamed", [False, True])
async def test_refusals_before_the_start(
    stand: DialectStand, client: AsyncOpenAI, streamed: bool
) -> None:
    """A stream has the same status, and the field has the name of this API."""
    too_long = Refused(
        status=400, kind="invalid_request_error", message="prompt is too long: 9 > 8"
    )
    stand.provider.say(too_long)
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="The tide?", stream=streamed)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(
            model=MODEL, input="The tide?", max_output_tokens=0, stream=streamed
        )
    assert refused.value.param == "max_output_tokens"
