"""Contents of answers: text, reasoning, tool calls, log probabilities and other members."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.events import (
    Event,
    ExtraDelta,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.providers.openai.response import OpenAiDecoder
from tests.services.providers.openai.answers import (
    STOP,
    call,
    delta,
    deltas,
    joined,
    piece,
    stream,
    whole,
)


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
def test_text_reasoning_and_refusals_are_read(
    message: dict[str, Any], expected: list[Event]
) -> None:
    """And reasoning: under all names that providers have for them, streamed or whole."""
    assert deltas(whole(message)) == expected
    assert joined(deltas(stream(delta(**message), STOP))) == expected


def test_reasoning_that_details_repeat_is_returned_once() -> None:
    """The details make one state at the end."""
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
    """Where no other member has the text."""
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
def test_tool_calls_are_numbered_from_0(
    pieces: list[list[dict[str, Any]]], expected: list[Event]
) -> None:
    """From 0, with ID and name in the first piece only."""
    found = stream(*(delta(tool_calls=fragments) for fragments in pieces), STOP)

    assert deltas(found) == expected


def test_calls_without_ids_get_different_ones() -> None:
    """Within an answer, and from those of other answers."""
    chunk = delta(tool_calls=[piece(name="f", arguments="{}"), piece(name="f", arguments="{}")])
    again = chunk | {"id": "c-2"}

    found = [one for data in (chunk, again) for one in stream(data, STOP)]
    ids = [one.id for one in found if isinstance(one, ToolCallDelta)]
    assert len(set(ids)) == 4
    assert all(one.startswith("call_") for one in ids)


def test_the_input_of_a_custom_tool_is_its_arguments() -> None:
    """It is free text, not JSON."""
    tool = {"id": "i", "type": "custom", "custom": {"name": "f", "input": "free"}}

    (found,) = deltas(whole({"tool_calls": [tool]}))
    assert found == ToolCallDelta(id="i", name="f", arguments="free", type="custom")


SIGNED = {"google": {"thought_signature": "s"}}


def test_the_extra_content_of_a_call_is_returned_once() -> None:
    """In whichever of its pieces it arrives."""
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


def test_the_extra_content_of_a_message_is_kept() -> None:
    """Gemini signs texts, too. A signature that comes twice is not concatenated."""
    (_, found) = deltas(
        stream(delta(content="a", extra_content=SIGNED), delta(extra_content=SIGNED), STOP)
    )
    assert isinstance(found, ExtraDelta)
    assert json.loads(found.extra_json) == {"extra_content": SIGNED}


def test_other_members_are_returned_once_and_whole() -> None:
    """Annotations, audio, images, and the function call of the older API."""
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


def test_images_in_the_content_join_the_member_images() -> None:
    """They follow those that it has."""
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


def test_log_probabilities_are_those_of_their_text() -> None:
    """Each text has its own, unchanged."""
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
        pytest.param(
            [
                {"message": {"role": "assistant"}},
                {"delta": {"content": "ab"}},
                {"message": {"content": "ab"}},
            ],
            id="before and after",
        ),
        pytest.param([{"delta": {}, "message": {"content": "ab"}}], id="beside an empty delta"),
        pytest.param([{"message": {"content": "ab"}}, {"delta": {}}], id="alone"),
    ],
)
def test_a_message_in_a_stream_adds_nothing_to_its_deltas(choices: list[dict[str, Any]]) -> None:
    """It repeats them, or is the answer where there are none."""
    events = stream(*({"choices": [choice]} for choice in choices), STOP)

    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "ab"


def test_white_space_around_a_whole_answer_is_ignored() -> None:
    """Servers keep connections alive with white space."""
    body = b"\n \n\n" + json.dumps({"choices": [{"message": {"content": "a"}}]}).encode() + b"\n"

    assert deltas(OpenAiDecoder().whole(body).events()) == [TextDelta("a")]


@given(
    text=st.text(),
    reasoning=st.text(),
    arguments=st.text(),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_stream_and_whole_answer_agree(
    text: str, reasoning: str, arguments: str, cuts: list[int]
) -> None:
    """The deltas of a stream, joined, are the whole answer."""
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
    """Return text, reasoning and arguments, each joined."""
    return (
        "".join(one.text for one in events if isinstance(one, TextDelta)),
        "".join(one.text for one in events if isinstance(one, ReasoningDelta)),
        "".join(one.arguments for one in events if isinstance(one, ToolCallDelta)),
    )
