"""Members of an answer that the contract has no fields for: they arrive, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from services.domain.completion import Choice, WholeAnswer
from services.domain.events import AnswerMembers, Event, Finished, TextDelta
from services.providers.openai.response import OpenAiDecoder
from services.providers.stream_reader import StreamReader
from services.providers.surrogate_joiner import decode_whole
from tests.services.providers.folds import assert_equal

Json = dict[str, Any]

STOP: Json = {"index": 0, "delta": {}, "finish_reason": "stop"}
TEXT: Json = {"index": 0, "delta": {"content": "a"}}


def whole(choice: Json, **members: object) -> WholeAnswer:
    """The answer in one document."""
    body = {"choices": [{"index": 0, "finish_reason": "stop"} | choice], **members}
    return OpenAiDecoder().whole(json.dumps(body).encode())


def stream_of(chunks: Sequence[Json], pieces: int) -> list[Event]:
    """The events of a stream of these chunks, which has no end, in so many pieces."""
    reader = StreamReader(OpenAiDecoder())
    events: list[Event] = []
    each = len(chunks) // pieces
    for begin in range(0, len(chunks), each):
        data = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks[begin : begin + each])
        found, error = reader.feed(data.encode())
        assert error is None
        events += found
    return events


def stream(chunks: Iterable[Json]) -> list[Event]:
    """The events of a stream of these chunks, which come one by one."""
    reader = StreamReader(OpenAiDecoder())
    events: list[Event] = []
    for data in [*map(json.dumps, chunks), "[DONE]"]:
        found, error = reader.feed(f"data: {data}\n\n".encode())
        assert error is None
        events += found
    return events


def test_members_that_come_alone_are_told_with_the_first_text() -> None:
    """The text has the same members again, or none."""
    alone: Json = {"choices": [], "system_fingerprint": "f", "citations": ["u"]}

    for text in ({"choices": [TEXT]}, {**alone, "choices": [TEXT]}):
        members, delta, *_ = stream([alone, text, {"choices": [STOP]}])

        assert members == AnswerMembers(system_fingerprint="f", extra_json=b'{"citations":["u"]}')
        assert delta == TextDelta("a")


@pytest.mark.parametrize("pieces", [1, 9])
def test_a_member_beside_repeated_texts_is_told(pieces: int) -> None:
    """It comes without a text, and changes back, among events that are read by their frame."""
    before, other = ({"choices": [TEXT], "system_fingerprint": name} for name in "fg")
    alone: Json = {"choices": [{"index": 0, "delta": {"content": ""}}], "filters": [1]}
    chunks = [before, before, before, other, before, before, alone, before, before]
    found = stream_of(chunks, pieces)

    assert [event for event in found if isinstance(event, AnswerMembers)] == [
        AnswerMembers(system_fingerprint="f", extra_json=b""),
        AnswerMembers(system_fingerprint="g", extra_json=b""),
        AnswerMembers(system_fingerprint="f", extra_json=b""),
        AnswerMembers(system_fingerprint="", extra_json=b'{"filters":[1]}'),
    ]
    assert found.index(AnswerMembers(extra_json=b'{"filters":[1]}')) == len(found) - 3


def test_a_service_tier_beside_a_text_is_told() -> None:
    """In the first event or in a later one, whatever else has none."""
    for tiers in ((None, "flex"), ("flex", None)):
        texts = [{"choices": [TEXT], "service_tier": tier} for tier in tiers]

        *_, finished = stream([*texts, {"choices": [STOP]}])

        assert finished == Finished(service_tier="flex")


def test_members_beside_the_choices_come_with_the_first_piece_and_when_they_change() -> None:
    """Members alone are no beginning: the answer may still fail over."""
    chunks: list[Json] = [
        {"choices": [], "system_fingerprint": "f", "filters": [1], "obfuscation": "xy"},
        {"choices": [TEXT], "system_fingerprint": "f", "citations": ["u"]},
        {"choices": [TEXT], "system_fingerprint": "f", "citations": ["u"]},
        {"choices": [TEXT], "system_fingerprint": "f", "citations": ["u"]},
        {"choices": [TEXT], "system_fingerprint": "g", "citations": ["u", "v"]},
        {"choices": [STOP], "timing": {"ms": 3}},
    ]

    events = stream(chunks)

    found = [event for event in events if isinstance(event, AnswerMembers)]
    assert events[0] is found[0]
    assert [(one.system_fingerprint, json.loads(one.extra_json)) for one in found] == [
        ("f", {"filters": [1], "citations": ["u"]}),
        ("g", {"citations": ["u", "v"]}),
        ("", {"timing": {"ms": 3}}),
    ]
    members = {"filters": [1], "citations": ["u", "v"], "timing": {"ms": 3}}
    text = {"message": {"content": "aaaa"}}
    assert_equal(whole(text, system_fingerprint="g", **members), events)


def test_the_operators_bill_is_withheld() -> None:
    """So is the account with the provider."""
    answer = whole({"message": {"content": "a"}}, cost=1, user_id="u", market_cost="2", mode="x")

    assert json.loads(answer.extra_json) == {"mode": "x"}


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([{"stop_reason": "x"}, {"stop_reason": "y"}], {"stop_reason": "y"}),
        ([{"token_ids": [1]}, {"token_ids": [1]}, {"token_ids": [2]}], {"token_ids": [1, 1, 2]}),
        (
            [{"filter": {"hate": {"on": False}}}, {"filter": {"hate": {"on": True}, "x": 1}}],
            {"filter": {"hate": {"on": True}, "x": 1}},
        ),
        ([{"seed": None}, {"text": "a"}], {}),
    ],
)
def test_members_of_a_choice_are_its_last_state(pieces: list[Json], expected: Json) -> None:
    """Their lists grow. Null is nothing, and the older API's text is the content once more."""
    events = stream([*({"choices": [TEXT | piece]} for piece in pieces), {"choices": [STOP]}])

    answer = whole({"message": {"content": "a" * len(pieces)}} | expected)
    assert json.loads(answer.choices[0].extra_json or "{}") == expected
    assert_equal(answer, events)


def test_a_list_that_repeats_in_equal_chunks_is_complete() -> None:
    """Chunks with equal bytes may be read together, unless each of them adds something."""
    chunk = {"choices": [TEXT | {"token_ids": [7]}]}

    events = stream([*[chunk] * 12, {"choices": [STOP]}])

    assert_equal(whole({"message": {"content": "a" * 12}, "token_ids": [7] * 12}), events)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([{"channel": "analysis"}, {"channel": "analysis"}], {"channel": "analysis"}),
        ([{"note": "ab"}, {"note": "c"}], {"note": "abc"}),
        ([{"tools": [1]}, {"tools": [2]}], {"tools": [1, 2]}),
        (
            [{"meta": {"a": "x", "n": 1}}, {"meta": {"a": "y", "n": 2}}],
            {"meta": {"a": "xy", "n": 2}},
        ),
        ([{"audio": {"data": "AA"}}, {"audio": {"data": "AA"}}], {"audio": {"data": "AAAA"}}),
    ],
)
def test_members_of_a_message_grow(pieces: list[Json], expected: Json) -> None:
    """A string that repeats all before it is a word; sound may be silent twice."""
    deltas = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]

    answer = whole({"message": expected})
    assert json.loads(answer.choices[0].message.extra_json) == expected
    assert_equal(answer, stream([*deltas, {"choices": [STOP]}]))


def test_members_of_tool_calls() -> None:
    """Those of the call and of its function, from any of its pieces, come once."""
    call = {"id": "c", "type": "function", "mark": "m", "function": {"name": "f", "kind": "k"}}
    pieces: list[Json] = [
        {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}, "mark": "m"},
        {"index": 0, "function": {"arguments": "}", "kind": "k"}, "mark": "m"},
    ]
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]
    call["function"]["arguments"] = "{}"  # type: ignore[index]

    answer = whole({"message": {"tool_calls": [call]}})
    (found,) = answer.choices[0].message.tool_calls
    assert json.loads(found.extra_json) == {"mark": "m", "function": {"kind": "k"}}
    assert_equal(answer, stream([*deltas, {"choices": [STOP]}]))


def test_other_parts_of_a_content_array() -> None:
    """Parts of other types, citations of a text, and pictures in any form."""
    content = [
        {"type": "text", "text": "a", "annotations": [{"u": 1}], "start": 3},
        {"type": "image_url", "image_url": "data:image/png;base64,AA", "index": 1},
        {"type": "reference", "ids": [1]},
    ]

    answer = whole({"message": {"content": content}})

    assert json.loads(answer.choices[0].message.extra_json) == {
        "content_parts": [
            {"type": "text", "annotations": [{"u": 1}]},
            {"type": "reference", "ids": [1]},
        ],
        "images": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}, "index": 1}
        ],
    }
    chunks = [{"choices": [{"index": 0, "delta": {"content": [part]}}]} for part in content]
    assert_equal(answer, stream([*chunks, {"choices": [STOP]}]))


OLDER: Json = {
    "tokens": ["a", "é"],
    "token_logprobs": [-0.5, None],
    "top_logprobs": [{"a": -0.5, "b": -1}, None],
    "text_offset": [0, 1],
}
NEWER: Json = {
    "content": [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [97]},
                {"token": "b", "logprob": -1, "bytes": [98]},
            ],
        },
        {"token": "é", "logprob": -9999.0, "bytes": [195, 169], "top_logprobs": []},
    ],
    "refusal": None,
    "text_offset": [0, 1],
}


def test_older_log_probabilities_have_the_newer_form() -> None:
    """Token by token; other lists stay as they are."""
    pieces = [
        {"content": "a", "logprobs": {name: [values[0]] for name, values in OLDER.items()}},
        {"content": "é", "logprobs": {name: [values[1]] for name, values in OLDER.items()}},
    ]
    chunks = [
        {"index": 0, "delta": {"content": piece["content"]}, "logprobs": piece["logprobs"]}
        for piece in pieces
    ]

    answer = whole({"message": {"content": "aé"}, "logprobs": OLDER})
    events = stream([*({"choices": [chunk]} for chunk in chunks), {"choices": [STOP]}])

    assert json.loads(answer.choices[0].logprobs_json) == NEWER
    assert [type(event) for event in events[:2]] == [TextDelta, TextDelta]
    assert_equal(answer, events)


@pytest.mark.parametrize("tokens", [[1, 2], []])
def test_log_probabilities_without_tokens_stay_as_they_are(tokens: list[object]) -> None:
    """What has no newer form is kept."""
    older = {"tokens": tokens, "token_logprobs": [-1.0]}

    choice: Choice = whole({"message": {"content": "a"}, "logprobs": older}).choices[0]

    assert json.loads(choice.logprobs_json)["token_logprobs"] == [-1.0]


def test_shares_of_the_usage() -> None:
    """By medium and prediction; other members in the provider's form, without its bill."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "cost": 1,
        "num_sources_used": 3,
        "server_tool_use": {"web_search_requests": 2},
        "prompt_tokens_details": {
            "audio_tokens": 60,
            "image_tokens": 500,
            "text_tokens": 40,
            "video_tokens": 7,
        },
        "completion_tokens_details": {
            "audio_tokens": 0,
            "image_tokens": -1,
            "text_tokens": 9,
            "accepted_prediction_tokens": 4,
            "rejected_prediction_tokens": 5,
        },
    }

    answer = whole({"message": {"content": "a"}}, usage=usage)

    found = answer.usage
    assert found is not None
    assert (found.prompt_audio_token_count, found.prompt_text_token_count) == (60, 40)
    assert found.prompt_image_token_count == 100  # No share exceeds its total.
    assert (found.completion_audio_token_count, found.completion_image_token_count) == (0, 0)
    assert found.completion_text_token_count == 9
    assert (found.accepted_prediction_token_count, found.rejected_prediction_token_count) == (4, 5)
    assert json.loads(found.extra_json) == {
        "num_sources_used": 3,
        "server_tool_use": {"web_search_requests": 2},
        "prompt_tokens_details": {"video_tokens": 7},
    }
    chunks: list[Json] = [{"choices": [TEXT]}, {"choices": [STOP], "usage": usage}]
    assert_equal(answer, stream(chunks))


HALF = "\ud83d"


def test_half_a_character_in_a_member_changes_nothing_else() -> None:
    """It is replaced, whole and streamed, and what was read with it is there once."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    message = {"content": "a", "tool_calls": [call], "odd": HALF}
    beside = {"known": 1, "half": [HALF]}

    body = {"choices": [{"message": message, "finish_reason": "stop"}], **beside}
    answer = decode_whole(OpenAiDecoder(), json.dumps(body).encode())
    events = stream([{"choices": [{"delta": message}], **beside}, {"choices": [STOP]}])

    assert json.loads(answer.extra_json) == {"known": 1, "half": ["\ufffd"]}
    assert json.loads(answer.choices[0].message.extra_json) == {"odd": "\ufffd"}
    assert answer.choices[0].message.tool_calls[0].arguments == "{}"
    assert_equal(answer, events)
