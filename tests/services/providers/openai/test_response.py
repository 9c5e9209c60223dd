"""Decoding answers: small invented cases for every habit of the providers."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.domain.events import (
    ChoiceFinished,
    Delta,
    Event,
    ExtraDelta,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.openai.response import OpenAiDecoder
from services.providers.stream_reader import StreamReader

STOP: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(data: object, name: str = "") -> SseEvent:
    """An event that carries this JSON."""
    return SseEvent(name, json.dumps(data, ensure_ascii=False).encode())


def delta(**fields: object) -> dict[str, Any]:
    """A chunk with one delta."""
    return {"id": "c-1", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def stream(*chunks: object, done: bool = True) -> list[Event]:
    """What comes of these chunks."""
    decoder = OpenAiDecoder(json.dumps)
    out = [made for data in chunks for made in decoder.feed(event(data))]
    if done:
        out += decoder.feed(SseEvent("", b"[DONE]"))
    return out + decoder.finish()


def whole(message: dict[str, Any], **fields: object) -> list[Event]:
    """The events of one JSON answer."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | fields
    body = json.dumps({"id": "c-1", "choices": [choice]}).encode()
    return OpenAiDecoder(json.dumps).whole(body).events()


def deltas(events: list[Event]) -> list[Event]:
    """The deltas, without the endings."""
    return [one for one in events if isinstance(one, Delta)]


def joined(events: list[Event]) -> list[Event]:
    """The events, with text joined that follows text."""
    found: list[Event] = []
    for one in events:
        last = found[-1] if found else None
        if isinstance(last, TextDelta) and isinstance(one, TextDelta):
            found[-1] = TextDelta(last.text + one.text)
        else:
            found.append(one)
    return found


def ending(events: list[Event]) -> ChoiceFinished:
    """The end of the last choice."""
    end = events[-2]
    assert isinstance(end, ChoiceFinished)
    return end


def counted(events: list[Event]) -> Usage:
    """The usage that the last event reports."""
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.usage is not None
    return last.usage


def call(index: int, *, arguments: str = "", id_: str = "", name: str = "") -> ToolCallDelta:
    """A piece of a tool call as it should come out."""
    return ToolCallDelta(
        call_index=index,
        id=id_,
        name=name,
        arguments=arguments,
        type="function" if name else "",
    )


def piece(**fields: Any) -> dict[str, Any]:
    """A piece of a tool call as providers send it."""
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    return fields | {"function": function}


def test_endings_come_last() -> None:
    """Deltas come at once; endings only when the stream is over, and only once."""
    decoder = OpenAiDecoder()

    assert len(decoder.feed(event(delta(content="a")))) == 1
    assert decoder.feed(event(STOP)) == []
    assert decoder.feed(event(STOP)) == []
    before, _, after = decoder.done, decoder.feed(SseEvent("", b"[DONE]")), decoder.done
    assert (before, after) == (False, True)
    assert decoder.feed(event(delta(content="too late"))) == []
    assert [type(made) for made in decoder.finish()] == [ChoiceFinished, Finished]


def test_ends_without_done() -> None:
    """An end after a finish reason is an end, with or without `[DONE]`."""
    assert stream(delta(content="a"), STOP, done=False) == stream(delta(content="a"), STOP)


@pytest.mark.parametrize("finish_reason", [None, ""])
def test_done_without_finish_reason_is_stop(finish_reason: str | None) -> None:
    """The provider ended its answer properly; without `[DONE]` the stream was cut."""
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}

    finished = ending(stream(delta(content="a"), end))
    assert finished == ChoiceFinished(finish_reason="stop")
    with pytest.raises(UpstreamError) as broken:
        stream(delta(content="a"), end, done=False)
    assert broken.value.reason == ErrorReason.UPSTREAM_DISCONNECTED


def test_done_without_an_answer_is_broken() -> None:
    """There is no choice that could have ended."""
    with pytest.raises(UpstreamError) as broken:
        stream()
    assert broken.value.reason == ErrorReason.UPSTREAM_DISCONNECTED


def test_an_empty_stream_is_no_answer() -> None:
    """A body without a single event is an answer that cannot be read."""
    with pytest.raises(UpstreamError) as refused:
        OpenAiDecoder().finish()
    assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


def test_every_choice_has_to_end() -> None:
    """With several answers, each of them says why it stopped."""
    both = {
        "choices": [
            {"index": 0, "delta": {"content": "a"}},
            {"index": 1, "delta": {"content": "b"}},
        ]
    }
    second = {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}

    assert stream(both, second, STOP) == [
        TextDelta("a"),
        TextDelta("b", 1),
        ChoiceFinished(index=0, finish_reason="stop", native_finish_reason="stop"),
        ChoiceFinished(index=1, finish_reason="length", native_finish_reason="length"),
        Finished(),
    ]
    with pytest.raises(UpstreamError):
        stream(both, second, done=False)


def test_first_finish_reason_counts_and_native_is_kept() -> None:
    """Said twice is said once."""
    first = {"choices": [{"delta": {}, "finish_reason": "length", "native_finish_reason": "MAX"}]}

    end = ending(stream(first, STOP))
    assert (end.finish_reason, end.native_finish_reason) == ("length", "MAX")


MORE: list[dict[str, Any]] = [
    {"content": "b"},
    {"reasoning_content": "b"},
    {"refusal": "b"},
    {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
]
LENGTH: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "length"}]}
CALLS: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("more", MORE)
def test_the_last_finish_reason_counts_after_more_of_the_answer(
    more: dict[str, Any], done: bool
) -> None:
    """A finish reason that more of the answer followed was not the end."""
    events = stream(delta(content="a"), LENGTH, delta(**more), STOP, CALLS, done=done)

    assert len(deltas(events)) == 2
    end = ending(events)
    assert end.finish_reason == "tool_calls"
    assert end.native_finish_reason == "tool_calls"


@pytest.mark.parametrize("more", MORE)
def test_more_after_the_last_finish_reason(more: dict[str, Any]) -> None:
    """With `[DONE]` the answer is complete, for the reason given; without, it was cut."""
    events = stream(delta(content="a"), LENGTH, delta(**more))
    assert ending(events).finish_reason == "length"

    with pytest.raises(UpstreamError):
        stream(delta(content="a"), LENGTH, delta(**more), done=False)


@given(words=st.lists(st.sampled_from(["a", "b", STOP, LENGTH, CALLS]), max_size=12))
def test_finish_reasons_in_every_slicing(words: list[str | dict[str, Any]]) -> None:
    """However the bytes are cut, also where repeated frames are not decoded one by one."""
    body = b"".join(
        b"data: "
        + json.dumps(delta(content=word) if isinstance(word, str) else word).encode()
        + b"\n\n"
        for word in ["a", *words, STOP]
    )
    body += b"data: [DONE]\n\n"
    ends = []
    for size in (1, 7, 100, len(body)):
        reader = StreamReader(OpenAiDecoder())
        found: list[Event] = []
        for begin in range(0, len(body), size):
            batch, failure = reader.feed(body[begin : begin + size])
            assert failure is None
            found += batch
        ends.append(ending(found))
    given_words = [word for word in [*words, STOP] if not isinstance(word, str)]
    reopened = any(
        not isinstance(word, str) and isinstance(after, str) for word, after in pairwise(words)
    )
    said = given_words[-1 if reopened else 0]["choices"][0]["finish_reason"]
    assert [end.native_finish_reason for end in ends] == [said] * 4


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "a"}, [TextDelta("a")]),
        ({"content": ""}, []),
        ({"content": None}, []),
        ({}, []),
        ({"content": "a", "reasoning_content": "r"}, [ReasoningDelta("r"), TextDelta("a")]),
        ({"content": "", "reasoning": "r"}, [ReasoningDelta("r")]),
        ({"reasoning": "r", "reasoning_content": "r"}, [ReasoningDelta("r")]),
        ({"content": None, "refusal": "no"}, [RefusalDelta("no")]),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "r"}, "s"]},
                    {"type": "text", "text": "a"},
                    {"type": "reference", "reference_ids": [1]},
                    "b",
                ]
            },
            [
                ReasoningDelta("rs"),
                TextDelta("ab"),
                ExtraDelta(b'{"content_parts":[{"type":"reference","reference_ids":[1]}]}'),
            ],
        ),
        ({"content": "<think>r</think>a"}, [TextDelta("<think>r</think>a")]),
        ({"content": 7, "role": 8, "refusal": ["odd"]}, [TextDelta("7")]),
        ({"content": {"type": "text", "text": "a"}, "reasoning": {"odd": 1}}, [TextDelta("a")]),
    ],
)
def test_contents(message: dict[str, Any], expected: list[Event]) -> None:
    """Text, reasoning and refusals are found under every name, streamed or whole."""
    assert deltas(whole(message)) == expected
    assert joined(deltas(stream(delta(**message), STOP))) == expected


def test_details_repeat_the_reasoning() -> None:
    """`reasoning` and `reasoning_details` are one text; the details make one state at the end."""
    pieces = [
        delta(
            reasoning="a", reasoning_details=[{"type": "reasoning.text", "text": "a", "index": 0}]
        ),
        delta(
            reasoning="b", reasoning_details=[{"type": "reasoning.text", "text": "b", "index": 0}]
        ),
        delta(
            reasoning_details=[{"type": "reasoning.text", "signature": "s", "index": 0, "text": ""}]
        ),
        delta(
            reasoning_details=[{"type": "reasoning.encrypted", "data": "x", "id": "i", "index": 0}]
        ),
        delta(
            reasoning_details=[{"type": "reasoning.encrypted", "data": "y", "id": "j", "index": 0}]
        ),
    ]

    *found, last = deltas(stream(*pieces, STOP))

    assert found == [ReasoningDelta("a"), ReasoningDelta("b")]
    assert isinstance(last, ReasoningStateDelta)
    assert json.loads(last.state) == [
        {"type": "reasoning.text", "text": "ab", "index": 0, "signature": "s"},
        {"type": "reasoning.encrypted", "data": "x", "id": "i", "index": 0},
        {"type": "reasoning.encrypted", "data": "y", "id": "j", "index": 0},
    ]


def test_details_alone_are_reasoning() -> None:
    """Where only the details hold the text, it is taken from there."""
    details = [
        {"type": "reasoning.summary", "summary": "a"},
        {"type": "reasoning.text", "text": "b"},
    ]

    assert whole({"reasoning_details": details})[0] == ReasoningDelta("ab")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (  # Whole, in one piece.
            [[piece(index=0, id="i", type="function", name="f", arguments="{}")]],
            [call(0, id_="i", name="f", arguments="{}")],
        ),
        (  # In fragments, with null, empty and repeated IDs and names.
            [
                [piece(index=0, id="i", name="f", arguments="")],
                [piece(index=0, id=None, name=None, arguments='{"a"')],
                [piece(index=0, id="", name="", arguments=":1")],
                [piece(index=0, id="i", name="f", arguments="}")],
            ],
            [
                call(0, id_="i", name="f", arguments='{"a"'),
                call(0, arguments=":1"),
                call(0, arguments="}"),
            ],
        ),
        (  # A new ID and complete arguments at the same index are a new call.
            [
                [
                    piece(index=0, id="i", name="f", arguments="1"),
                    piece(index=0, id="j", name="f", arguments="2"),
                ]
            ],
            [call(0, id_="i", name="f", arguments="1"), call(1, id_="j", name="f", arguments="2")],
        ),
        (  # Without indexes.
            [
                [piece(id="i", name="f", arguments="1"), piece(id="j", name="g", arguments="2")],
                [piece(arguments="3")],
            ],
            [
                call(0, id_="i", name="f", arguments="1"),
                call(1, id_="j", name="g", arguments="2"),
                call(1, arguments="3"),
            ],
        ),
        (  # Indexes that do not start at 0, interleaved.
            [
                [piece(index=3, id="i", name="f", arguments="")],
                [piece(index=5, id="j", name="g", arguments="")],
                [piece(index=3, arguments="1"), piece(index=5, arguments="2")],
            ],
            [
                call(0, id_="i", name="f"),
                call(0, arguments="1"),
                call(1, id_="j", name="g", arguments="2"),
            ],
        ),
        (  # The name comes late.
            [[piece(index=0, id="i", arguments="{")], [piece(index=0, name="f", arguments="}")]],
            [call(0, id_="i", name="f", arguments="{}")],
        ),
        (  # Arguments are null, or the object itself.
            [
                [piece(index=0, id="i", name="f", arguments=None)],
                [piece(index=1, id="j", name="g", arguments={"a": 1})],
            ],
            [
                call(0, id_="i", name="f"),
                call(1, id_="j", name="g", arguments='{"a":1}'),
                call(0, arguments="{}"),
            ],
        ),
        (  # What the model wrote is not repaired.
            [[piece(index=0, id="i", name="f", arguments='{"a":')]],
            [call(0, id_="i", name="f", arguments='{"a":')],
        ),
    ],
)
def test_tool_calls(pieces: list[list[dict[str, Any]]], expected: list[Event]) -> None:
    """Calls come out numbered from 0, with ID and name in the first piece only."""
    found = stream(*(delta(tool_calls=fragments) for fragments in pieces), STOP)

    assert deltas(found) == expected


def test_ids_are_made_where_there_are_none() -> None:
    """Calls without IDs get some that differ, within the answer and from other answers."""
    chunk = delta(tool_calls=[piece(name="f", arguments="{}"), piece(name="f", arguments="{}")])
    again = chunk | {"id": "c-2"}

    found = [one for data in (chunk, again) for one in stream(data, STOP)]
    ids = [one.id for one in found if isinstance(one, ToolCallDelta)]
    assert len(set(ids)) == 4
    assert all(one.startswith("call_") for one in ids)


def test_custom_tools() -> None:
    """The free input of a custom tool is its arguments."""
    tool = {"id": "i", "type": "custom", "custom": {"name": "f", "input": "free"}}

    (found,) = deltas(whole({"tool_calls": [tool]}))
    assert found == ToolCallDelta(id="i", name="f", arguments="free", type="custom")


SIGNED = {"google": {"thought_signature": "s"}}


def test_content_that_the_provider_wants_back() -> None:
    """It belongs to its call, once, wherever in the call it stands."""
    first = {"index": 0, "id": "i", "type": "function", "function": {"name": "f"}}
    rest = {"index": 0, "function": {"arguments": "{}"}}
    late = {"index": 0, "extra_content": SIGNED}
    for pieces in (
        [first | {"extra_content": SIGNED}, rest],
        [first, rest | {"extra_content": SIGNED}],
        [first, rest, late],
        [first, late, rest | {"extra_content": SIGNED}],
        [first, rest, rest | {"extra_content": SIGNED}],
        [first | {"extra_content": SIGNED}],
    ):
        found = deltas(stream(*[delta(tool_calls=[piece]) for piece in pieces], STOP))
        contents = [
            json.loads(each.extra_content_json)
            for each in found
            if isinstance(each, ToolCallDelta) and each.extra_content_json
        ]
        assert contents == [SIGNED]


def test_content_that_belongs_to_the_message() -> None:
    """Gemini signs texts, too. A signature that is repeated stays as it is."""
    (_, found) = deltas(
        stream(delta(content="a", extra_content=SIGNED), delta(extra_content=SIGNED), STOP)
    )
    assert isinstance(found, ExtraDelta)
    assert json.loads(found.extra_json) == {"extra_content": SIGNED}


def test_other_fields_are_gathered() -> None:
    """Annotations, sound, pictures and the old function call come once and whole."""
    (found,) = deltas(
        stream(
            delta(audio={"id": "a", "transcript": "x"}, annotations=[1]),
            delta(audio={"id": "a", "transcript": "y"}, annotations=[2], images=[]),
            delta(function_call={"name": "f", "arguments": "{"}),
            delta(function_call={"arguments": "}"}),
            STOP,
        )
    )

    assert isinstance(found, ExtraDelta)
    assert json.loads(found.extra_json) == {
        "audio": {"id": "a", "transcript": "xy"},
        "annotations": [1, 2],
        "function_call": {"name": "f", "arguments": "{}"},
    }


def test_pictures_in_the_content_are_images() -> None:
    """Pictures of a content array are in the field `images`, after those that are there."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}
    message = {
        "content": [{"type": "text", "text": "x"}, picture],
        "images": [picture | {"index": 0}],
    }

    for events in (whole(message), stream(delta(**message), STOP)):
        text, extra = deltas(events)
        assert text == TextDelta("x")
        assert isinstance(extra, ExtraDelta)
        assert json.loads(extra.extra_json) == {"images": [picture | {"index": 0}, picture]}


def test_log_probabilities() -> None:
    """They travel with the text they belong to, as they are."""
    chunk = delta(content="a")
    chunk["choices"][0]["logprobs"] = {
        "content": [{"token": "a", "logprob": -0.5}],
        "refusal": None,
    }
    empty = delta(content="b")
    empty["choices"][0]["logprobs"] = {"content": None}
    odd = delta(content="c")
    odd["choices"][0]["logprobs"] = [0.5]

    first, second, third, *_ = stream(chunk, empty, odd, STOP)
    assert isinstance(first, TextDelta)
    assert json.loads(first.logprobs_json)["content"] == [{"token": "a", "logprob": -0.5}]
    assert (second, third) == (TextDelta("b"), TextDelta("c"))


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


@pytest.mark.parametrize(
    "chunks",
    [
        [delta(content="a"), STOP, {"choices": [], "usage": USAGE}],
        [delta(content="a"), STOP | {"usage": {"input_tokens": 5, "output_tokens": 7}}],
        [
            delta(content="a"),
            STOP | {"usage": {"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 2}},
        ],
        [delta(content="a"), STOP | {"usage": USAGE}],
        [delta(content="a"), STOP, delta() | {"usage": USAGE}],
        [
            delta(content="a") | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}},
            STOP | {"usage": USAGE},
        ],
        [delta(content="a") | {"usage": None}, STOP | {"x_groq": {"usage": USAGE}}],
        [{"choices": [STOP["choices"][0] | {"usage": USAGE}]}],
        [
            delta(content="a"),
            STOP | {"usage": USAGE},
            {"choices": [], "usage": {"prompt_tokens": -1}},
        ],
        [
            delta(content="a"),
            STOP | {"usage": USAGE},
            {"choices": [], "usage": {"prompt_tokens": 1e12}},
        ],
        [delta(content="a"), STOP | {"usage": USAGE}, {"usage": {"prompt_tokens": "many"}}],
    ],
)
def test_finds_usage(chunks: list[dict[str, Any]]) -> None:
    """Usage is found in all the places where providers put it; the last believable one counts."""
    usage = counted(stream(*chunks))

    assert (usage.prompt_token_count, usage.completion_token_count) == (5, 7)
    assert usage.source == "provider"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {"total_tokens": 1050, "prompt_tokens_details": {"cached_tokens": 900}},
            (1000, 50, 900, 0),
            id="the rest of the total is cached",
        ),
        pytest.param(
            {
                "total_tokens": 1050,
                "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
            },
            (1000, 50, 600, 300),
            id="the rest of the total is cached and written",
        ),
        pytest.param(
            {"total_tokens": 1050, "cache_creation_input_tokens": 900},
            (1000, 50, 0, 900),
            id="the rest of the total is written",
        ),
        pytest.param(
            {"total_tokens": 150, "cache_read_input_tokens": 900},
            (1000, 50, 900, 0),
            id="more is cached than the prompt, and the total leaves it out",
        ),
        pytest.param({"cached_tokens": 900}, (1000, 50, 900, 0), id="no total"),
        pytest.param(
            {
                "total_tokens": 1080,
                "prompt_cache_hit_tokens": 900,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            (1000, 80, 900, 0),
            id="reasoning stands beside the completion, too",
        ),
        pytest.param(
            {"total_tokens": 150, "prompt_tokens_details": {"cached_tokens": 90}},
            (100, 50, 90, 0),
            id="cached tokens in the prompt",
        ),
        pytest.param(
            {
                "total_tokens": 180,
                "prompt_tokens_details": {"cached_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            (100, 80, 30, 0),
            id="the rest of the total is the reasoning",
        ),
        pytest.param(
            {
                "total_tokens": 1080,
                "prompt_tokens": 190,
                "prompt_tokens_details": {"cached_tokens": 180},
                "completion_tokens": 50,
                "completion_tokens_details": {"reasoning_tokens": 660},
            },
            (370, 710, 180, 0),
            id="the rest of the total is cached and reasoning",
        ),
        pytest.param(
            {
                "prompt_tokens": None,
                "completion_tokens": None,
                "input_tokens": 100,
                "output_tokens": 50,
                "input_tokens_details": {"cached_tokens": 90},
            },
            (100, 50, 90, 0),
            id="details with the names of other endpoints",
        ),
        pytest.param(
            {"prompt_tokens": None, "total_tokens": 150}, (100, 50, 0, 0), id="no prompt tokens"
        ),
        pytest.param(
            {"prompt_tokens": 0, "total_tokens": 150}, (100, 50, 0, 0), id="zero prompt tokens"
        ),
        pytest.param({"prompt_tokens": None}, (0, 50, 0, 0), id="no prompt tokens, no total"),
        pytest.param(
            {"prompt_tokens": 0, "total_tokens": 50, "cached_tokens": 90},
            (0, 50, 90, 0),
            id="no prompt tokens but cached ones",
        ),
    ],
)
def test_cached_tokens_beside_the_prompt(
    usage: dict[str, object], expected: tuple[int, int, int, int]
) -> None:
    """They belong to the prompt, whole and streamed."""
    said = {"prompt_tokens": 100, "completion_tokens": 50} | usage
    body = {"choices": STOP["choices"], "usage": said}
    streamed = stream(delta(content="a"), STOP, {"choices": [], "usage": said})
    for events in (streamed, OpenAiDecoder().whole(json.dumps(body).encode()).events()):
        found = counted(events)
        assert expected == (
            found.prompt_token_count,
            found.completion_token_count,
            found.cache_read_token_count,
            found.cache_write_token_count,
        )
        assert found.total_token_count == expected[0] + expected[1]


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param(
            [{"delta": {"content": "ab"}}, {"message": {"content": "ab"}}], id="once more"
        ),
        pytest.param(
            [
                {"delta": {"role": "assistant", "content": ""}, "message": {"content": ""}},
                {"delta": {"content": "a"}, "message": {"content": "a"}},
                {"delta": {"content": "b"}, "message": {"content": "ab"}},
            ],
            id="beside each delta",
        ),
        pytest.param([{"delta": {}, "message": {"content": "ab"}}], id="beside an empty delta"),
        pytest.param([{"message": {"content": "ab"}}, {"delta": {}}], id="alone"),
    ],
)
def test_messages_in_a_stream(choices: list[dict[str, Any]]) -> None:
    """A message repeats the deltas, or is the answer where there are none."""
    events = stream(*({"choices": [choice]} for choice in choices), STOP)

    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "ab"


def test_numbers_as_strings() -> None:
    """Usage, indexes and IDs of another type are read all the same."""
    piece = {"index": "1", "id": 7, "function": {"name": "f", "arguments": "{}"}}
    usage = {"prompt_tokens": "12", "completion_tokens": "3.0", "total_tokens": "many"}
    events = stream(delta(tool_calls=piece), STOP, {"choices": {}, "usage": usage})

    (call,) = [event for event in events if isinstance(event, ToolCallDelta)]
    assert (call.id, call.name, call.arguments) == ("7", "f", "{}")
    found = counted(events)
    assert (found.prompt_token_count, found.completion_token_count) == (12, 3)


def test_a_total_alone_is_no_usage() -> None:
    """It does not say how much of it is the prompt."""
    body = {"choices": STOP["choices"], "usage": {"total_tokens": 150, "prompt_tokens": 0}}

    assert OpenAiDecoder().whole(json.dumps(body).encode()).usage is None


def test_usage_survives_a_failure() -> None:
    """What was reported before an error can still be charged."""
    decoder = OpenAiDecoder()
    with pytest.raises(UpstreamError):
        decoder.feed(event({"usage": USAGE, "choices": [], "error": {"message": "no"}}))

    assert decoder.usage is not None
    assert decoder.usage.total_token_count == 12


@pytest.mark.parametrize(
    "chunk",
    [
        {"error": {"message": "Slow down", "code": 429}},
        delta(content="a") | {"error": {"message": "Slow down", "code": 429}},
        {
            "choices": [
                {
                    "delta": {},
                    "finish_reason": "stop",
                    "error": {"message": "Slow down", "code": 429},
                }
            ]
        },
        {"object": "error", "message": "Slow down", "type": "rate_limit_error"},
        {"choices": [], "x_groq": {"error": {"message": "Slow down", "status": 429}}},
        {"code": "Throttling.RateQuota", "message": "Slow down", "request_id": "r"},
        {"code": 429, "msg": "Slow down"},
        {"status": 429, "message": "Slow down", "choices": None},
    ],
)
def test_errors_in_chunks(chunk: dict[str, Any]) -> None:
    """An error is found wherever it hides, also after the finish reason."""
    for before in ([], [delta(content="a"), STOP]):
        with pytest.raises(UpstreamError) as failed:
            stream(*before, chunk)
        assert failed.value.reason == ErrorReason.UPSTREAM_RATE_LIMITED
        assert failed.value.message == "Slow down"


@pytest.mark.parametrize(
    "data", [b'{"error":{"message":"Oh","code":503}}', b'{"message":"Oh","code":503}']
)
def test_error_events(data: bytes) -> None:
    """An event named `error` is one, whatever its shape."""
    with pytest.raises(UpstreamError) as failed:
        OpenAiDecoder().feed(SseEvent("error", data))
    assert failed.value.reason == ErrorReason.UPSTREAM_OVERLOADED


@pytest.mark.parametrize(
    "chunk",
    [
        {"detail": "Too long"},
        {"error_code": 9, "error_msg": "Too long"},
        {"id": "x", "choices": None, "base_resp": {"status_code": 2013, "status_msg": "Too long"}},
    ],
)
def test_errors_that_only_their_members_show(chunk: dict[str, Any]) -> None:
    """They are no members of a whole answer, though `[DONE]` follows."""
    with pytest.raises(UpstreamError, match="Too long"):
        stream(delta(content="a"), chunk)
    with pytest.raises(UpstreamError, match="Too long"):
        OpenAiDecoder().whole(json.dumps(chunk).encode())


@pytest.mark.parametrize(
    "chunk",
    [
        {"status": "queued", "message": "Second in the queue."},
        {"choices": None, "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"choices": [], "detail": "fine"},
    ],
)
def test_other_chunks_without_choices_are_no_errors(chunk: dict[str, Any]) -> None:
    """Their members are passed on."""
    assert deltas(stream(delta(content="a"), chunk, STOP)) == [TextDelta("a")]


@pytest.mark.parametrize("error", [None, {}, "", False, []])
def test_no_error_is_no_error(error: object) -> None:
    """A field `error` that says nothing is not an error."""
    assert deltas(stream(delta(content="a") | {"error": error}, STOP)) == [TextDelta("a")]


@pytest.mark.parametrize("data", [b"{", b"hello", b"[1]", b"5", b'{"choices":5}x', b"\xff", b'"a"'])
def test_garbage(data: bytes) -> None:
    """What is not a JSON object cannot be read, in a stream or whole."""
    with pytest.raises(UpstreamError) as streamed:
        OpenAiDecoder().feed(SseEvent("", data))
    with pytest.raises(UpstreamError) as whole_answer:
        OpenAiDecoder().whole(data)
    for refused in (streamed, whole_answer):
        assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize("field", ["content", "reasoning", "refusal", "audio", "annotations"])
def test_text_that_is_no_text(field: str) -> None:
    """Bytes that are not UTF-8, and halves of surrogate pairs, never travel on."""
    for odd in (b'"\xff"', b'["\xff"]', b'{"a":"\\ud800"}'):
        data = b'{"choices":[{"delta":{"%b":%b}}]}' % (field.encode(), odd)
        with pytest.raises(UpstreamError) as refused:
            OpenAiDecoder().feed(SseEvent("", data))
        assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize(
    "body", [b"{}", b'{"choices":[]}', b'{"choices":null}', b"<html></html>", b""]
)
def test_whole_answers_without_choices(body: bytes) -> None:
    """A success without an answer is not one."""
    with pytest.raises(UpstreamError) as refused:
        OpenAiDecoder().whole(body)
    assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


def test_white_space_before_a_whole_answer() -> None:
    """Servers keep connections alive with white space."""
    body = b"\n \n\n" + json.dumps({"choices": [{"message": {"content": "a"}}]}).encode() + b"\n"

    assert deltas(OpenAiDecoder().whole(body).events()) == [TextDelta("a")]


def test_a_filtered_answer_may_have_no_message() -> None:
    """Azure leaves the message out where it withholds an answer."""
    body = json.dumps({"choices": [{"index": 0, "finish_reason": "content_filter"}]}).encode()

    end, _ = OpenAiDecoder().whole(body).events()
    assert end == ChoiceFinished(
        finish_reason="content_filter", native_finish_reason="content_filter"
    )


@pytest.mark.parametrize("index", [-1, 128, 10**9])
def test_indexes_have_bounds(index: int) -> None:
    """Nobody can be made to allocate by an index."""
    with pytest.raises(UpstreamError):
        stream({"choices": [{"index": index, "delta": {"content": "a"}}]})


KEYS = {"choices", "index", "delta", "message", "content", "tool_calls", "function", "name", "id"}
KEYS |= {"arguments", "finish_reason", "usage", "prompt_tokens", "error", "reasoning_details"}
KEYS |= {"logprobs", "x_groq", "type", "text", "thinking", "audio", "annotations", "object"}

SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(KEYS)), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.lists(SCRAPS, max_size=4))
def test_no_event_is_too_odd(events: list[object]) -> None:
    """Any JSON gives events or an UpstreamError, and never another exception."""
    decoder = OpenAiDecoder(json.dumps)
    with suppress(UpstreamError):
        for data in events:
            decoder.feed(event(data))
        decoder.finish()
    if decoder.usage is not None:
        usage = decoder.usage
        assert usage.total_token_count == usage.prompt_token_count + usage.completion_token_count
        assert usage.thinking_token_count <= usage.completion_token_count


@given(
    text=st.text(),
    reasoning=st.text(),
    arguments=st.text(),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_stream_and_whole_answer_agree(
    text: str, reasoning: str, arguments: str, cuts: list[int]
) -> None:
    """However an answer was cut into deltas, it adds up to the whole one."""
    tool = piece(id="i", name="f", arguments=arguments)
    message = {"content": text, "reasoning": reasoning, "tool_calls": [tool]}
    edges = [0, *sorted(cuts), 50_000]
    parts = [delta(tool_calls=[piece(index=0, id="i", name="f")])]
    for begin, end in pairwise(edges):
        parts.append(delta(content=text[begin:end], reasoning=reasoning[begin:end]))
        parts.append(delta(tool_calls=[piece(index=0, arguments=arguments[begin:end])]))

    expected = (text, reasoning, arguments or "{}")
    assert sums(stream(*parts, STOP)) == sums(whole(message)) == expected


def sums(events: list[Event]) -> tuple[str, str, str]:
    """Text, reasoning and arguments, put together."""
    return (
        "".join(one.text for one in events if isinstance(one, TextDelta)),
        "".join(one.text for one in events if isinstance(one, ReasoningDelta)),
        "".join(one.arguments for one in events if isinstance(one, ToolCallDelta)),
    )
