"""Usage in answers, wherever providers report it and however they count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.domain.events import (
    ToolCallDelta,
)
from services.errors import UpstreamError
from services.providers.openai.response import OpenAiDecoder
from tests.services.providers.openai.answers import STOP, USAGE, counted, delta, event, stream


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
def test_usage_is_found_wherever_providers_report_it(chunks: list[dict[str, Any]]) -> None:
    """The last plausible report counts."""
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
    """They are part of the prompt, whole and streamed."""
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


def test_numbers_may_be_strings() -> None:
    """In usage, indexes and IDs."""
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
    """It can still be charged."""
    decoder = OpenAiDecoder()
    with pytest.raises(UpstreamError):
        decoder.feed(event({"usage": USAGE, "choices": [], "error": {"message": "no"}}))

    assert decoder.usage is not None
    assert decoder.usage.total_token_count == 12
