"""Finish reasons, alike in every dialect, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from services.domain.events import ChoiceFinished, Event
from services.errors import UpstreamError
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Decoder, SseEvent
from services.providers.finish_reasons import FAILURES, FINISH_REASONS, finish_reason
from services.providers.openai.response import OpenAiDecoder

Answer = Callable[[str | None], ChoiceFinished]


def ending(events: list[Event]) -> ChoiceFinished:
    """The end of the only choice of an answer."""
    end = events[-2]
    assert isinstance(end, ChoiceFinished)
    return end


def streamed(decoder: Decoder, *events: bytes) -> ChoiceFinished:
    """The end of the first choice of a stream."""
    for data in events:
        decoder.feed(SseEvent("", data))
    return ending(decoder.finish())


def openai_whole(word: str | None) -> ChoiceFinished:
    """A whole answer of OpenAI's dialect."""
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": word}
    return ending(OpenAiDecoder().whole(json.dumps({"choices": [choice]}).encode()).events())


def openai_stream(word: str | None) -> ChoiceFinished:
    """A stream of OpenAI's dialect that ends with `[DONE]`."""
    first = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": word}]}
    events = (json.dumps(first).encode(), json.dumps(last).encode(), b"[DONE]")
    return streamed(OpenAiDecoder(), *events)


def anthropic_whole(word: str | None) -> ChoiceFinished:
    """A whole answer of Anthropic's dialect."""
    message: dict[str, object] = {"type": "message", "content": [], "stop_reason": word}
    return ending(AnthropicDecoder().whole(json.dumps(message).encode()).events())


def anthropic_stream(word: str | None) -> ChoiceFinished:
    """A stream of Anthropic's dialect."""
    ending = {"type": "message_delta", "delta": {"stop_reason": word}}
    begin, end = b'{"type":"message_start","message":{}}', b'{"type":"message_stop"}'
    return streamed(AnthropicDecoder(), begin, json.dumps(ending).encode(), end)


every_form = pytest.mark.parametrize(
    "answer", [openai_whole, openai_stream, anthropic_whole, anthropic_stream]
)


@every_form
@pytest.mark.parametrize("word", sorted(FINISH_REASONS))
def test_known_words(answer: Answer, word: str) -> None:
    """In any case, with hyphens or underscores; kept as the provider gave them."""
    for given in (word, word.upper(), word.replace("_", "-")):
        end = ChoiceFinished(finish_reason=FINISH_REASONS[word], native_finish_reason=given)
        assert answer(given) == end


@every_form
@pytest.mark.parametrize("word", ["tired", "OTHER", "LANGUAGE", "finish_reason_unspecified"])
def test_unknown_words_are_stop(answer: Answer, word: str) -> None:
    """The answer has ended; the word is kept."""
    end = ChoiceFinished(finish_reason="stop", native_finish_reason=word)
    assert answer(word) == end


@every_form
@pytest.mark.parametrize("word", [None, ""])
def test_a_missing_word_is_stop(answer: Answer, word: str | None) -> None:
    """Where the provider ended its answer properly."""
    assert answer(word) == ChoiceFinished(finish_reason="stop")


@every_form
@pytest.mark.parametrize("word", ["output_filter", "azure-content-filter", "PROMPT_FILTER"])
def test_filters(answer: Answer, word: str) -> None:
    """All words that end in `filter`."""
    assert answer(word).finish_reason == "content_filter"


@every_form
@pytest.mark.parametrize(
    "word",
    [
        *FAILURES,
        "MALFORMED_FUNCTION_CALL",
        "malformed_function_call",
        "malformed_tool_use",
        "function_call_filter: MALFORMED_FUNCTION_CALL",
    ],
)
def test_failures(answer: Answer, word: str) -> None:
    """Some words mean that there is no whole answer."""
    with pytest.raises(UpstreamError) as failed:
        answer(word)
    expected = FAILURES.get(word, FAILURES["error"])
    assert failed.value.reason == expected


def test_the_table_is_in_the_form_of_its_lookup() -> None:
    """Lower case and underscores."""
    for word in (*FINISH_REASONS, *FAILURES):
        assert word == word.lower().replace("-", "_")
        assert finish_reason(f" {word.upper()} ") == FINISH_REASONS.get(word, "stop")


@pytest.mark.parametrize("word", ["stop", "error", "tool_calls"])
def test_a_malformed_call_in_the_native_word(word: str) -> None:
    """OpenRouter says `stop` where Gemini has failed to write a call."""
    ends = {"finish_reason": word, "native_finish_reason": "MALFORMED_FUNCTION_CALL"}
    chunk = json.dumps({"choices": [{"index": 0, "delta": {}, **ends}]}).encode()
    body = json.dumps({"choices": [{"message": {"content": ""}, **ends}]}).encode()
    with pytest.raises(UpstreamError, match="malformed tool call"):
        OpenAiDecoder().feed(SseEvent("", chunk))
    with pytest.raises(UpstreamError, match="malformed tool call"):
        OpenAiDecoder().whole(body)
