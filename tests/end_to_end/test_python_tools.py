"""Loops of tool calls with OpenAI's Python SDK, whichever dialect the provider speaks.

The provider refuses a second turn that does not bring back the first as it was: calls,
text, and reasoning with its signatures, each in its place.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, pydantic_function_tool
from pydantic import BaseModel

from tests.stand.dialect_stand import MODEL, RESULTS, THINKING, TOOLS, DialectStand
from tests.stand.providers.answers import (
    Answer,
    Part,
    Redacted,
    Text,
    Thought,
    call,
    text,
    thought,
)

QUESTION: Any = {"role": "user", "content": "How is Paris, and what time is it?"}
ASKS = Answer(
    parts=[
        thought("I need", " both tools.", signature="Zmlyc3Q="),
        Redacted("c2VjcmV0"),
        text("Let me ", "see."),
        call("toolu_1", "weather", '{"ci', 'ty": "Pa', 'ris"}'),
        call("toolu_2", "clock"),
    ],
    stop="tool_calls",
    thinking_tokens=4,
)
"""Reasons in plain text and in secret, speaks, and calls two tools, one without arguments."""
ASKS_AGAIN = Answer(
    parts=[
        thought("Once more.", signature="c2Vjb25k"),
        call("toolu_3", "weather", '{"city": "Rome"}'),
    ],
    stop="tool_calls",
)
REASONS = {"thinking", "reasoning", "reasoning_effort"}
"""The keys that make providers reason."""
ANSWERS = Answer(parts=[thought("I have it all."), text("18 °C, ", "noon.")])


def unsigned(answer: Answer) -> Answer:
    """Return the answer without the parts of models that reason."""
    parts = [part for part in answer.parts if not isinstance(part, Redacted)]
    return Answer(parts=[p for p in parts if not hasattr(p, "signature")], stop=answer.stop)


def results(message: Any) -> list[dict[str, Any]]:
    """Return the results of the tools that were called."""
    return [
        {"role": "tool", "tool_call_id": call["id"], "content": RESULTS[call["function"]["name"]]}
        for call in message["tool_calls"]
    ]


async def ask_whole(client: AsyncOpenAI, messages: list[Any], **more: Any) -> Any:
    """The message of a whole answer, as a program keeps it."""
    completion = await client.chat.completions.create(messages=messages, tools=TOOLS, **more)
    # Pydantic warns of the content array, for which the SDK has no type.
    return completion.choices[0].message.model_dump(exclude_none=True, warnings=False)


async def ask_helper(client: AsyncOpenAI, messages: list[Any], **more: Any) -> dict[str, Any]:
    """The message that the SDK's helper puts together from a stream."""
    async with client.chat.completions.stream(messages=messages, tools=TOOLS, **more) as stream:
        completion = await stream.get_final_completion()
    return completion.choices[0].message.model_dump(exclude_none=True)


async def ask_stream(client: AsyncOpenAI, messages: list[Any], **more: Any) -> dict[str, Any]:
    """The message that a program puts together from a stream with its own hands."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
    async for chunk in await client.chat.completions.create(
        messages=messages, tools=TOOLS, stream=True, **more
    ):
        delta = chunk.choices[0].delta
        message["content"] += delta.content or ""
        if state := (delta.model_extra or {}).get("reasoning_state"):
            message["reasoning_state"] = state
        for piece in delta.tool_calls or ():
            assert piece.function is not None
            made = calls.setdefault(
                piece.index, {"id": "", "type": "function", "function": {"arguments": ""}}
            )
            made["id"] = piece.id or made["id"]
            made["function"]["name"] = piece.function.name or made["function"]["name"]
            made["function"]["arguments"] += piece.function.arguments or ""
    return message | ({"tool_calls": list(calls.values())} if calls else {})


@pytest.mark.parametrize("ask", [ask_whole, ask_helper, ask_stream])
@pytest.mark.parametrize("model", [MODEL, THINKING])
async def test_a_loop_of_parallel_calls_ends(
    stand: DialectStand, client: AsyncOpenAI, ask: Any, model: str
) -> None:
    """Three messages go back unchanged, and the provider accepts them."""
    answers = [ASKS, ASKS_AGAIN, ANSWERS]
    stand.provider.say(*(answers if model == THINKING else map(unsigned, answers)))
    messages: list[Any] = [QUESTION]

    while "tool_calls" in (message := await ask(client, messages, model=model)):
        messages += [message, *results(message)]

    assert "18 °C, noon." in json.dumps(message["content"], ensure_ascii=False)
    assert len(stand.provider.requests) == 3
    first = messages[1]
    if model == THINKING:
        assert all(body.keys() & REASONS for body in stand.provider.bodies)
    assert [call["id"] for call in first["tool_calls"]] == ["toolu_1", "toolu_2"]
    arguments = [json.loads(c["function"]["arguments"] or "{}") for c in first["tool_calls"]]
    assert arguments == [{"city": "Paris"}, {}]


async def test_a_loop_may_change_between_streams_and_whole_answers(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """Either may come first."""
    stand.provider.say(ASKS, ASKS_AGAIN, ANSWERS)

    message = await ask_helper(client, [QUESTION], model=THINKING)
    messages = [QUESTION, message, *results(message)]
    message = await ask_whole(client, messages, model=THINKING)
    messages += [message, *results(message)]
    message = await ask_stream(client, messages, model=THINKING)

    assert message["content"] == "18 °C, noon."


async def test_a_loop_without_reasoning_goes_on_with_a_note(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """Calls of another gateway have no reasoning."""
    stand.provider.say(ASKS, ANSWERS)
    message = await ask_whole(client, [QUESTION], model=THINKING)
    message.pop("reasoning_state", None)
    for number, made in enumerate(message["tool_calls"]):
        made["id"] = f"elsewhere_{number}"
    request: Any = {"model": THINKING, "tools": TOOLS}
    request["messages"] = [QUESTION, message, *results(message)]
    create = client.chat.completions.with_raw_response.create

    answer = await create(**request)
    notes = json.loads(answer.headers.get("x-pomogator-notes", "[]"))
    is_stopped = stand.dialect in ("anthropic", "openrouter")
    lost = ["reasoning_content", "thinking"] if is_stopped else ["reasoning_content"]
    assert [note["param"] for note in notes] == lost


async def test_reasoning_details_come_back_instead_of_the_state(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """OpenRouter's clients keep them."""
    stand.provider.say(ASKS, ANSWERS)
    message = await ask_whole(client, [QUESTION], model=THINKING)
    message.pop("reasoning_state", None)
    form = {"format": "anthropic-claude-v1"}
    message["reasoning_details"] = [
        form
        | {"type": "reasoning.text", "text": "I need both tools.", "signature": "Zmlyc3Q="}
        | {"index": 0},
        form | {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1},
    ]

    messages = [QUESTION, message, *results(message)]
    answer = await ask_whole(client, messages, model=THINKING)

    assert answer["content"]


SAYINGS = st.lists(
    st.text(min_size=1, max_size=8) | st.sampled_from(["\n", " "]), min_size=1, max_size=3
).map(tuple)
SEALED = st.builds(Thought, SAYINGS, st.just("c2ln")) | st.builds(Redacted, st.just("c2VjcmV0"))
TURNS = st.lists(SEALED | st.builds(Text, SAYINGS), max_size=6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=TURNS, more=TURNS, streamed=st.booleans())
async def test_any_turn_comes_back_as_it_was(
    stand: DialectStand, client: AsyncOpenAI, parts: list[Part], more: list[Part], streamed: bool
) -> None:
    """However reasoning, text and calls follow each other, the next request has them so."""
    first, second = call("toolu_1", "clock"), call("toolu_2", "weather", '{"city": "Oslo"}')
    # It begins to reason before it does anything else, as signed reasoning does.
    turn = [thought("Well."), *parts, first, *more, second]
    stand.provider.say(Answer(parts=turn, stop="tool_calls"), ANSWERS)

    ask = ask_helper if streamed else ask_whole
    message = await ask(client, [QUESTION], model=THINKING)
    await ask(client, [QUESTION, message, *results(message)], model=THINKING)

    assert all(body.keys() & REASONS for body in stand.provider.bodies)


class weather(BaseModel):  # noqa: N801 - the tool's name
    """The weather in a city."""

    city: str


async def test_typed_arguments_are_parsed(stand: DialectStand, client: AsyncOpenAI) -> None:
    """The SDK parses them, whole and streamed."""
    stand.provider.say(unsigned(ASKS_AGAIN))
    wanted: Any = {
        "model": MODEL,
        "messages": [QUESTION],
        "tools": [pydantic_function_tool(weather)],
        "parallel_tool_calls": False,
    }

    completion = await client.chat.completions.parse(**wanted)
    async with client.chat.completions.stream(**wanted) as stream:
        streamed = await stream.get_final_completion()

    for choice in (completion.choices[0], streamed.choices[0]):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        function: Any = choice.message.tool_calls[0].function
        assert function.parsed_arguments == weather(city="Rome")


async def test_a_forced_tool_has_the_providers_form(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """A tool that must be called is named to the provider in its own form."""
    stand.provider.say(unsigned(ASKS_AGAIN))
    chosen: Any = {"type": "function", "function": {"name": "weather"}}

    await ask_whole(client, [QUESTION], model=MODEL, tool_choice=chosen)

    theirs = {
        "anthropic": {"type": "tool", "name": "weather"},
        "openai-responses": {"type": "function", "name": "weather"},
    }
    assert stand.provider.bodies[0]["tool_choice"] == theirs.get(stand.dialect, chosen)


async def test_arguments_that_are_no_json_stay_as_they_are(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """Arguments that are no JSON reach the caller as the model wrote them."""
    broken = Answer(parts=[call("toolu_1", "weather", '{"city": ')], stop="tool_calls")
    stand.provider.say(broken)

    message = await ask_stream(client, [QUESTION], model=MODEL)

    assert message["tool_calls"][0]["function"]["arguments"] == '{"city": '


async def test_functions_of_before_tools_are_called(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """They are called whole and streamed."""
    stand.provider.say(unsigned(ASKS_AGAIN), unsigned(ASKS_AGAIN), unsigned(ANSWERS))
    request: Any = {"model": MODEL, "functions": [TOOLS[0]["function"]]}

    completion = await client.chat.completions.create(messages=[QUESTION], **request)
    async with client.chat.completions.stream(messages=[QUESTION], **request) as stream:
        async for _ in stream:
            pass
        streamed = stream.current_completion_snapshot

    for choice in (completion.choices[0], streamed.choices[0]):
        assert choice.finish_reason == "function_call"
        assert choice.message.function_call is not None
        assert choice.message.function_call.name == "weather"
        assert json.loads(choice.message.function_call.arguments) == {"city": "Rome"}
    said: Any = {"role": "function", "name": "weather", "content": "18 °C"}
    asked: Any = completion.choices[0].message.model_dump(exclude_none=True)
    answer = await client.chat.completions.create(messages=[QUESTION, asked, said], **request)
    assert answer.choices[0].message.content == "18 °C, noon."


async def test_further_calls_arrive_beside_a_function_call(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """The provider calls twice although it may call once. Both calls come back."""
    twice = Answer(
        parts=[call("toolu_1", "weather", '{"city":"Rome"}'), call("toolu_2", "time", "{}")],
        stop="tool_calls",
    )
    stand.provider.say(twice, twice, unsigned(ANSWERS))
    request: Any = {"model": MODEL, "functions": [tool["function"] for tool in TOOLS]}

    completion = await client.chat.completions.create(messages=[QUESTION], **request)
    async with client.chat.completions.stream(messages=[QUESTION], **request) as stream:
        async for _ in stream:
            pass
        streamed = stream.current_completion_snapshot

    for choice in (completion.choices[0], streamed.choices[0]):
        assert choice.message.function_call is not None
        assert choice.message.function_call.name == "weather"
        (other,) = choice.message.tool_calls or []
        assert other.type == "function"
        assert (other.id, other.function.name) == ("toolu_2", "time")
    asked: Any = completion.choices[0].message.model_dump(exclude_none=True)
    said: list[Any] = [
        {"role": "function", "name": "weather", "content": "18 °C"},
        {"role": "tool", "tool_call_id": "elsewhere", "content": "noon"},
    ]
    # The provider of these tests compares turns by their IDs, and the old form has none.
    asked["tool_calls"][0]["id"] = "elsewhere"
    await client.chat.completions.create(messages=[QUESTION, asked, *said], **request)
    sent = stand.provider.requests[-1].body.decode()
    assert "18 °C" in sent
    assert "has no result" not in sent
