"""Recorded answers of OpenAI and Azure, whole and streamed, decoded in every slicing.

The recordings are not part of the project: POMOGATOR_CAPTURES names the folder that holds them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.domain.conversation import TextPart
from services.domain.events import Event, Finished
from services.errors import UpstreamError
from services.providers.openai_responses.response import ResponsesDecoder
from services.providers.stream_reader import StreamReader
from tests.services.providers.folds import assert_equal

FOLDER = os.environ.get("POMOGATOR_CAPTURES", "")

Case = dict[str, Any]


def cases(*, streamed: bool) -> list[Any]:
    """Return the recorded answers, or one case that skips where there are none."""
    if not FOLDER:
        return [pytest.param({}, marks=pytest.mark.skip("POMOGATOR_CAPTURES is not set"))]
    paths = sorted(Path(FOLDER, "wire", "openai_responses").glob("*.json"))
    found = [(path.stem, json.loads(path.read_bytes())) for path in paths]
    return [
        pytest.param(case, id=name)
        for name, case in found
        if is_answer(case) and (body(case)[:1] != b"{") == streamed
    ]


def body(case: Case) -> bytes:
    """Return the body of the answer."""
    found = case["response"]["body"]
    return (found if isinstance(found, str) else json.dumps(found)).encode()


def is_answer(case: Case) -> bool:
    """Whether the exchange is an answer, and no conversation, count, compaction or error."""
    data = body(case)
    if case["response"]["status"] != 200:
        return False
    return data[:1] != b"{" or json.loads(data)["object"] == "response"


def randomly(data: bytes) -> Iterator[bytes]:
    """Yield pieces of random sizes, the same in every run."""
    sizes, start = random.Random(len(data)), 0  # noqa: S311 - no secret
    while start < len(data):
        size = sizes.randint(1, 300)
        yield data[start : start + size]
        start += size


SLICINGS: Mapping[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda data: [data],
    "event": lambda data: [piece + b"\n\n" for piece in data.split(b"\n\n")],
    "byte": lambda data: [data[i : i + 1] for i in range(len(data))],
    "random": lambda data: list(randomly(data)),
}


def read_stream(data: bytes, slicing: str) -> list[Event]:
    """Return the events of a stream."""
    reader = StreamReader(ResponsesDecoder("m", details=True))
    events: list[Event] = []
    for piece in (*SLICINGS[slicing](data), b""):
        found, error = reader.feed(piece)
        events += found
        if error is not None:
            raise error
        if reader.complete:
            break
    return events


def last_response(data: bytes) -> Any:
    """Return the answer in the last event of a stream, with its items as they were before."""
    lines = [line[6:] for line in data.splitlines() if line.startswith(b"data: {")]
    events = [json.loads(line) for line in lines]
    response = events[-1]["response"]
    for event in events:
        if event["type"] == "response.output_item.done":
            response["output"][event["output_index"]] = event["item"]  # Seals differ.
    return response


def text_of(output: Sequence[Any]) -> str:
    """Return the text of an answer's items."""
    return "".join(
        part["text"] for item in output if item["type"] == "message" for part in item["content"]
    )


@pytest.mark.parametrize("case", cases(streamed=True))
@pytest.mark.parametrize("slicing", SLICINGS)
def test_a_stream_equals_the_answer_in_its_last_event(case: Case, slicing: str) -> None:
    """However its bytes come."""
    data = body(case)
    whole = ResponsesDecoder("m", details=True).whole(json.dumps(last_response(data)).encode())

    events = read_stream(data, slicing)

    assert_equal(whole, events)
    assert isinstance(last := events[-1], Finished)
    assert last.usage is not None
    assert last.usage.total_token_count > 0


@pytest.mark.parametrize("case", cases(streamed=False))
def test_a_document_has_its_texts_calls_and_usage(case: Case) -> None:
    """As the provider wrote them; one that is not finished is no answer."""
    found = json.loads(body(case) or b"{}")
    decoder = ResponsesDecoder("m", details=True)
    if found["status"] == "queued":
        with pytest.raises(UpstreamError, match="not finished"):
            decoder.whole(body(case))
        return

    whole = decoder.whole(body(case))

    assert_equal(whole, whole.events())
    (choice,) = whole.choices
    message, output = choice.message, found["output"]
    said = "".join(part.text for part in message.content if isinstance(part, TextPart))
    assert said == text_of(output)
    calls = [item for item in output if item["type"] == "function_call"]
    assert [call.id for call in message.tool_calls] == [call["call_id"] for call in calls]
    assert [call.arguments for call in message.tool_calls] == [call["arguments"] for call in calls]
    sealed = [
        item for item in output if item["type"] == "reasoning" and "encrypted_content" in item
    ]
    assert bool(message.reasoning_state) == any(item["encrypted_content"] for item in sealed)
    if (usage := found.get("usage")) and usage["total_tokens"]:
        assert whole.usage is not None
        assert whole.usage.prompt_token_count == usage["input_tokens"]
        assert whole.usage.completion_token_count == usage["output_tokens"]
