"""What a program with OpenAI's SDK gets from Responses, whichever dialect the provider speaks."""

from __future__ import annotations

import json
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall

from tests.stand.dialect_stand import MODEL, DialectStand
from tests.stand.providers.answers import Answer, call, text, thought
from tests.stand.response_events import check_response

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


async def test_a_whole_answer(stand: DialectStand, client: AsyncOpenAI) -> None:
    """A text, with usage and what the request said."""
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


async def test_a_stream(stand: DialectStand, client: AsyncOpenAI) -> None:
    """The SDK's helper puts the events together."""
    stand.provider.say(GREETING)

    async with client.responses.stream(model=MODEL, input="The tide?") as stream:
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()

    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert response.output_text == "High tide."


async def test_a_tool_round(stand: DialectStand, client: AsyncOpenAI) -> None:
    """Items that come back, reasoning with its seal among them, are the provider's turn again."""
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
