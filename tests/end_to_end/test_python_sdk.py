"""Programs with OpenAI's Python SDK, over each dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.stand.dialect_stand import MODEL, THINKING, DialectStand
from tests.stand.providers.answers import Answer, Redacted, text, thought

MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Привет!"},
]
GREETING = Answer(parts=[text("При", "вет", "! 🌍")])
REASONED = Answer(
    parts=[thought("Two", " and two."), Redacted("c2VjcmV0"), text("It", " is 4")],
    completion_tokens=30,
    thinking_tokens=17,
)


class Capital(BaseModel):
    """A typed answer."""

    country: str
    city: str


CAPITAL = Answer(parts=[text('{"country": "Fr', 'ance", "city"', ': "Paris"}')])


async def _chunks(client: AsyncOpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    request: Any = {"model": MODEL, "messages": MESSAGES, "stream": True} | fields
    return [chunk async for chunk in await client.chat.completions.create(**request)]


async def test_a_whole_answer_has_text_reason_and_tokens(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """A whole answer has the text, the reason to stop and the tokens."""
    stand.provider.say(GREETING)

    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)

    assert completion.object == "chat.completion"
    assert completion.model == MODEL
    assert completion.choices[0].message.content == "Привет! 🌍"
    assert completion.choices[0].message.refusal is None
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 21
    assert completion.usage.completion_tokens == 13
    assert completion.usage.total_tokens == 34


async def test_the_cost_is_exact(stand: DialectStand, client: AsyncOpenAI) -> None:
    """It is in a header, and on request in the usage."""
    stand.provider.say(GREETING)
    asking = {"usage": {"include": True}}

    answer = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, extra_body=asking
    )
    chunks = await _chunks(client, extra_body=asking)

    charged = "0.000258"  # 21 tokens at $3 and 13 at $15, a million.
    assert answer.headers["x-pomogator-cost"] == charged
    for usage in (answer.parse().usage, chunks[-1].usage):
        assert usage is not None
        assert str(usage.model_dump()["cost"]) == charged


async def test_a_stream_has_the_providers_pieces(stand: DialectStand, client: AsyncOpenAI) -> None:
    """All chunks have one ID, and one has the finish reason."""
    stand.provider.say(GREETING)

    chunks = await _chunks(client)

    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert [delta.content for delta in deltas if delta.content] == ["При", "вет", "! 🌍"]
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


async def test_usage_of_a_stream_is_in_an_extra_last_chunk(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """With `include_usage` every other chunk has `usage: null`."""
    stand.provider.say(GREETING)

    chunks = await _chunks(client, stream_options={"include_usage": True})

    *others, last = chunks
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in others)
    assert all(chunk.choices for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 34


async def test_the_sdks_helper_makes_the_whole_answer(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """The SDK's own accumulation of a stream is the whole answer."""
    stand.provider.say(GREETING)

    async with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        pieces = [event.delta async for event in stream if event.type == "content.delta"]
        completion = await stream.get_final_completion()

    assert [piece for piece in pieces if piece] == ["При", "вет", "! 🌍"]
    assert completion.choices[0].message.content == "Привет! 🌍"
    assert completion.choices[0].finish_reason == "stop"


async def test_a_typed_answer_is_parsed(stand: DialectStand, client: AsyncOpenAI) -> None:
    """The provider gets the schema in its own form."""
    stand.provider.say(CAPITAL)

    completion = await client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Capital
    )

    assert completion.choices[0].message.parsed == Capital(country="France", city="Paris")
    body = stand.provider.bodies[0]
    if stand.dialect == "anthropic":
        schema = body["output_config"]["format"]["schema"]
    elif stand.dialect == "openai-responses":
        assert body["text"]["format"]["strict"] is True
        schema = body["text"]["format"]["schema"]
    else:
        assert body["response_format"]["json_schema"]["strict"] is True
        schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["country", "city"]
    assert schema["additionalProperties"] is False


async def test_a_typed_answer_is_parsed_from_a_stream(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """A typed answer is parsed from a stream too."""
    stand.provider.say(CAPITAL)

    async with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Capital
    ) as stream:
        completion = await stream.get_final_completion()

    assert completion.choices[0].message.parsed == Capital(country="France", city="Paris")


async def test_a_typed_answer_of_a_model_that_reasons_is_a_string(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """The SDK cannot parse an array."""
    stand.provider.say(Answer(parts=[thought("Hm."), *CAPITAL.parts]))

    completion = await client.chat.completions.parse(
        model=THINKING, messages=MESSAGES, response_format=Capital
    )

    message: Any = completion.choices[0].message
    assert message.parsed == Capital(country="France", city="Paris")
    assert message.reasoning_content == "Hm."


async def test_a_thinking_name_gives_the_content_array(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """The plain reasoning is beside it."""
    stand.provider.say(REASONED)

    completion = await client.chat.completions.create(
        model=THINKING, messages=MESSAGES, reasoning_effort="high"
    )

    message: Any = completion.choices[0].message
    assert message.content == [
        {"type": "thinking", "thinking": "Two and two."},
        {"type": "text", "text": "It is 4"},
    ]
    assert message.reasoning_content == "Two and two."
    usage: Any = completion.usage
    assert usage.thinking_tokens == 17
    assert usage.completion_tokens_details.reasoning_tokens == 17


async def test_thinking_may_be_asked_for_as_text(stand: DialectStand, client: AsyncOpenAI) -> None:
    """Typed programs need a string."""
    stand.provider.say(REASONED)

    completion = await client.chat.completions.create(
        model=THINKING, messages=MESSAGES, extra_headers={"x-pomogator-content": "text"}
    )

    message: Any = completion.choices[0].message
    assert message.content == "It is 4"
    assert message.reasoning_content == "Two and two."


async def test_a_stream_gives_reasoning_and_text_apart(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """The sealed reasoning comes once and whole."""
    stand.provider.say(REASONED)

    chunks = await _chunks(client, model=THINKING)

    deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks]
    reasoning = [d.reasoning_content for d in deltas if getattr(d, "reasoning_content", None)]
    assert reasoning == ["Two", " and two."]
    assert [delta.content for delta in deltas if delta.content] == ["It", " is 4"]
    states = [d.reasoning_state for d in deltas if getattr(d, "reasoning_state", None)]
    assert len(states) == stand.is_signed


async def test_a_refusal_is_in_its_own_field(stand: DialectStand, client: AsyncOpenAI) -> None:
    """It ends with the filter's reason, whole and streamed."""
    stand.provider.say(Answer(refusal="I cannot help with that.", stop="content_filter"))

    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    async with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        async for _ in stream:
            pass
        streamed = stream.current_completion_snapshot

    for choice in (completion.choices[0], streamed.choices[0]):
        assert choice.message.refusal == "I cannot help with that."
        assert choice.finish_reason == "content_filter"


async def test_an_answer_cut_by_its_limit_says_so(stand: DialectStand, client: AsyncOpenAI) -> None:
    """An answer that was cut off by its limit says so."""
    stand.provider.say(Answer(parts=[text("Once upon")], stop="length"))

    completion = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=20
    )

    assert completion.choices[0].finish_reason == "length"
    body = stand.provider.bodies[0]
    assert body.get("max_tokens", body.get("max_output_tokens")) == 20


async def test_several_answers_come_apart_or_are_refused(
    client: AsyncOpenAI, stand: DialectStand
) -> None:
    """They have their log probabilities, and there are never fewer."""
    stand.provider.say(GREETING)
    wanted: Any = {"model": MODEL, "messages": MESSAGES, "n": 2, "logprobs": True}
    if stand.dialect != "openai":
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.create(**wanted)
        assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "n")
        assert not stand.provider.requests
        return

    completion = await client.chat.completions.create(**wanted)
    async with client.chat.completions.stream(**wanted) as stream:
        streamed = await stream.get_final_completion()

    for found in (completion, streamed):
        assert [choice.index for choice in found.choices] == [0, 1]
        for choice in found.choices:
            assert choice.message.content == "Привет! 🌍"
            assert choice.logprobs is not None
            assert "".join(t.token for t in choice.logprobs.content or ()) == "Привет! 🌍"


async def test_dropped_parameters_have_notes_in_a_header(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """Whole answers and streams have it."""
    stand.provider.say(GREETING)
    create = client.chat.completions.with_raw_response.create

    for streamed in (False, True):
        answer = await create(model=MODEL, messages=MESSAGES, service_tier="flex", stream=streamed)
        notes = json.loads(answer.headers["x-pomogator-notes"])
        assert [(note["param"], note["action"]) for note in notes] == [("service_tier", "dropped")]
    assert all("service_tier" not in body for body in stand.provider.bodies)
