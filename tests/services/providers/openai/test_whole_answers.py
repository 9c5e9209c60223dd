"""Whole answers equal the folds of the streams that say the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.conversation import ReasoningPart, TextPart
from services.domain.events import Event
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.openai import wire
from services.providers.openai.reasoning import Reasoning
from services.providers.openai.response import OpenAiDecoder
from services.providers.openai.tool_calls import ToolCalls
from services.providers.openai.whole_choice import WholeChoice, plain_choice
from tests.services.providers.folds import assert_equal
from tests.services.providers.openai.test_captures import body, cases

Json = dict[str, Any]

TEXTS = st.text(max_size=12)
WORDS = st.sampled_from(["f", "get_x", "ж"])
TOKENS = st.lists(st.fixed_dictionaries({"token": TEXTS, "logprob": st.floats(-9, 0)}), max_size=3)
DETAILS = st.lists(
    st.fixed_dictionaries({"type": st.just("reasoning.text"), "text": TEXTS, "id": TEXTS}),
    max_size=2,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"name": WORDS, "arguments": TEXTS, "custom": st.booleans(), "has_id": st.booleans()}
    ),
    max_size=3,
)
CHOICES = st.fixed_dictionaries(
    {
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "END_TURN", "odd"]),
        "native": st.sampled_from([None, "", "end_turn"]),
        "content": TEXTS,
        "refusal": TEXTS,
        "reasoning": TEXTS,
        "reasoning_details": DETAILS,
        "tool_calls": CALLS,
        "annotations": st.lists(st.integers(0, 9), max_size=3),
        "audio": st.dictionaries(st.sampled_from(["data", "transcript"]), TEXTS, max_size=2),
        "function_call": st.none() | st.fixed_dictionaries({"name": WORDS, "arguments": TEXTS}),
        "tokens": TOKENS,
        "refusal_tokens": TOKENS,
    }
)
ANSWERS = st.fixed_dictionaries(
    {
        "choices": st.lists(CHOICES, min_size=1, max_size=3),
        "usage": st.none()
        | st.fixed_dictionaries(
            {"prompt_tokens": st.integers(0, 99), "completion_tokens": st.integers(0, 99)},
            optional={"reasoning_tokens": st.integers(0, 99), "cached_tokens": st.integers(0, 99)},
        ),
        "service_tier": st.sampled_from([None, "flex"]),
    }
)


PLAIN = st.fixed_dictionaries(
    {
        "message": st.fixed_dictionaries(
            {"content": TEXTS},
            optional={
                "role": st.sampled_from([None, "assistant", "model"]),
                "refusal": st.none(),
                "annotations": st.just([]) | st.none(),
            },
        ),
        "finish_reason": st.sampled_from(["stop", "length", "END_TURN", "odd", "content_filter"]),
    },
    optional={
        "index": st.just(0) | st.none(),
        "native_finish_reason": st.sampled_from([None, "", "end_turn"]),
        "logprobs": st.none(),
    },
)


def read(choice: Json) -> wire.Choice:
    """The choice as the type of its JSON."""
    choices = wire.decode(json.dumps({"choices": [choice]}).encode())[0].choices
    assert choices is not None
    return choices[0]


@given(PLAIN, st.booleans())
def test_choice_with_a_text_alone_is_that_of_all_choices(choice: Json, details: bool) -> None:
    """The short way is the usual one, and gives the same."""
    found = read(choice)
    whole = WholeChoice(0, ToolCalls(""), Reasoning(details))
    whole.add(found, None)
    whole.end(found.finish_reason or "", found.native_finish_reason)

    assert plain_choice(found) == whole.made(json.dumps)


@pytest.mark.parametrize(
    "members",
    [
        *({name: 1} for name in ("index", "token_ids", "stop_reason", "matched_stop")),
        {"finish_reason": None},
        {"message": None},
        {"delta": {"content": "b"}},
        {"logprobs": {"content": []}},
        {"usage": {}},
        {"error": {"message": "x"}},
        *({"message": {"content": "a", name: "b"}} for name in ("refusal", "reasoning")),
        {"message": {"content": "a", "annotations": [1]}},
        {"message": {"content": ["a"]}},
        {"message": {"content": "a", "tool_calls": []}},
    ],
)
def test_choice_with_more_than_a_text_is_not_plain(members: Json) -> None:
    """Whatever it has besides."""
    choice = {"message": {"content": "a"}, "finish_reason": "stop"} | members

    assert plain_choice(read(choice)) is None


@pytest.mark.parametrize("word", ["error", "network_error", "abort"])
def test_failed_choice_with_a_text_alone_is_a_failure(word: str) -> None:
    """Its text is no answer."""
    choice = {"message": {"content": "a"}, "finish_reason": word}

    with pytest.raises(UpstreamError):
        decoder().whole(json.dumps({"choices": [choice]}).encode())


def decoder(*, details: bool = False) -> OpenAiDecoder:
    """A decoder with a reasoning state that can be read."""
    return OpenAiDecoder(pack_state=json.dumps, details=details)


def streamed(chunks: list[Json], *, details: bool = False) -> list[Event]:
    """The events of a stream that ends with `[DONE]`."""
    made = decoder(details=details)
    events = [event for chunk in chunks for event in made.feed(frame(chunk))]
    made.feed(SseEvent("", b"[DONE]"))
    return events + made.finish()


def frame(chunk: Json) -> SseEvent:
    """The chunk as a server-sent event."""
    return SseEvent("", json.dumps(chunk).encode())


@pytest.mark.parametrize("kind", ["reasoning", "reasoning_text", "thinking"])
def test_parts_of_reasoning(kind: str) -> None:
    """Their text is no text of the answer, whichever member has it."""
    parts = [{"type": kind, "text": "Hm."}, {"type": "output_text", "text": "Yes."}]
    end = {"finish_reason": "stop"}
    whole = {"choices": [{"index": 0, "message": {"content": parts}, **end}]}
    chunk = {"choices": [{"index": 0, "delta": {"content": parts}, **end}]}
    answer = decoder().whole(json.dumps(whole).encode())

    expected = [ReasoningPart(text="Hm."), TextPart(text="Yes.")]
    assert answer.choices[0].message.content == expected
    assert_equal(answer, streamed([chunk]))


@pytest.mark.parametrize("piece", ["Hello", "Grüße 🙂", ""])
def test_the_older_form_of_a_text(piece: str) -> None:
    """A choice without a message has its text in `text`; beside a message that is the same."""
    whole = {"choices": [{"index": 0, "text": piece * 2, "finish_reason": "stop"}]}
    chunk = {"choices": [{"index": 0, "text": piece}]}
    last = {"choices": [{"index": 0, "text": "more", "delta": {}, "finish_reason": "stop"}]}
    answer = decoder().whole(json.dumps(whole).encode())

    expected = [TextPart(text=piece * 2)] if piece else []
    assert answer.choices[0].message.content == expected
    assert_equal(answer, streamed([chunk, chunk, last]))


def tool_call(index: int, call: Json, arguments: str, *, first: bool = True) -> Json:
    """A tool call, or a fragment of it with these arguments."""
    name = {"name": call["name"]} if first else {}
    found: Json = {"index": index, "id": f"call-{index}"} if call["has_id"] else {"index": index}
    if call["custom"]:
        return found | {"type": "custom", "custom": name | {"input": arguments}}
    return found | {"type": "function", "function": name | {"arguments": arguments}}


def whole_choice(index: int, choice: Json) -> Json:
    """The choice of a whole answer."""
    names = ("content", "refusal", "reasoning", "reasoning_details", "annotations", "audio")
    message = {name: choice[name] for name in (*names, "function_call")}
    calls = enumerate(choice["tool_calls"])
    message["tool_calls"] = [tool_call(at, call, call["arguments"]) for at, call in calls]
    return {
        "index": index,
        "message": message,
        "finish_reason": choice["finish_reason"],
        "native_finish_reason": choice["native"],
        "logprobs": {"content": choice["tokens"], "refusal": choice["refusal_tokens"]},
    }


def deltas(data: st.DataObject, choice: Json) -> list[Json]:
    """The choice in slices, each with what else belongs to its chunk."""
    found: list[Json] = []
    for name in ("reasoning", "content", "refusal"):
        found += [{"delta": {name: piece}} for piece in cut(data, choice[name])]
    # A list without elements tells the decoder nothing, but the fold would know of it.
    tokens = {"content": choice["tokens"], "refusal": choice["refusal_tokens"]}
    if any(tokens.values()):
        at = data.draw(st.integers(0, len(found) - 1))
        found[at]["logprobs"] = tokens
    found += [{"delta": {"reasoning_details": [one]}} for one in choice["reasoning_details"]]
    for index, call in enumerate(choice["tool_calls"]):
        for number, piece in enumerate(cut(data, call["arguments"])):
            fragment = tool_call(index, call, piece, first=number == 0)
            found.append({"delta": {"tool_calls": [fragment]}})
    found.append({"delta": {"function_call": choice["function_call"]}})
    found += [{"delta": {"annotations": [one]}} for one in choice["annotations"]]
    found += [{"delta": {"audio": {key: text}}} for key, text in choice["audio"].items()]
    ends = {"finish_reason": choice["finish_reason"], "native_finish_reason": choice["native"]}
    return [*found, {"delta": {}} | ends]


def cut(data: st.DataObject, text: str) -> list[str]:
    """The text in slices, at least one."""
    at = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=3)))
    return [text[begin:end] for begin, end in pairwise([0, *at, len(text)])]


@given(answer=ANSWERS, data=st.data(), details=st.booleans())
def test_generated_answers(answer: Json, data: st.DataObject, *, details: bool) -> None:
    """Of several choices, with all fields, however the stream is cut and interleaved."""
    if details:  # Providers that have both send them in one chunk.
        for choice in answer["choices"]:
            choice["reasoning"] = "" if choice["reasoning_details"] else choice["reasoning"]
    beside = {name: answer[name] for name in ("usage", "service_tier")}
    choices = [whole_choice(index, choice) for index, choice in enumerate(answer["choices"])]
    waiting = [deltas(data, choice) for choice in answer["choices"]]
    chunks: list[Json] = []
    while any(waiting):
        index = data.draw(st.sampled_from([at for at, rest in enumerate(waiting) if rest]))
        chunks.append({"id": "c", "choices": [waiting[index].pop(0) | {"index": index}]})

    body = json.dumps({"id": "c", "choices": choices} | beside).encode()
    whole = decoder(details=details).whole(body)

    assert_equal(whole, streamed([*chunks, {"choices": []} | beside], details=details))


@pytest.mark.parametrize("case", cases("non-stream"))
def test_recorded_answers(case: Json) -> None:
    """A recorded answer equals the stream with the same messages as deltas."""
    if case["expect"].get("error"):
        with pytest.raises(UpstreamError):
            decoder().whole(body(case))
        return
    recorded = json.loads(body(case))
    for choice in recorded["choices"]:
        message = choice["delta"] = choice.pop("message", {})
        for at, call in enumerate(message.get("tool_calls") or ()):
            call["index"] = at

    assert_equal(decoder().whole(body(case)), streamed([recorded]))


def test_messages_of_one_index_are_one_choice() -> None:
    """Some servers number none of their choices: in a stream they would be one choice, too."""
    tokens = {"content": [{"token": "a"}]}
    first = {"message": {"content": "a", "annotations": [1]}, "finish_reason": "stop"}
    second = {"message": {"content": "b", "annotations": [2]}, "finish_reason": "length"}
    choices = [first | {"logprobs": tokens}, second | {"logprobs": tokens}]

    whole = decoder().whole(json.dumps({"choices": choices}).encode())

    assert_equal(whole, streamed([{"choices": [choice]} for choice in choices]))
    (choice,) = whole.choices
    assert choice.finish_reason == "length"
    assert json.loads(choice.logprobs_json) == {"content": tokens["content"] * 2, "refusal": None}
