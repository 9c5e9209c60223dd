"""A whole answer as the fold of its stream."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest

from services.completions.fold import Fold
from services.domain.completion import Completion
from services.domain.conversation import ReasoningPart, TextPart
from services.domain.events import (
    ChoiceFinished,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    Note,
    RawContent,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage


def finish(index: int = 0, reason: FinishReason = "stop") -> ChoiceFinished:
    """Return an event that ends a choice."""
    return ChoiceFinished(index=index, finish_reason=reason, native_finish_reason="end")


def folded(*events: Event) -> Completion:
    """Fold `events`, each in a batch of its own."""
    fold = Fold()
    for event in events:
        fold.add([event])
    return fold.answer


def test_the_answer_has_identity_and_usage_of_the_stream() -> None:
    """From its first and its last event."""
    started = Started(
        completion_id="c",
        model="m",
        create_time_s=7,
        notes=[Note(param="top_k", action="dropped", detail="")],
    )
    usage = Usage(total_token_count=9)

    answer = folded(started, Finished(usage=usage, service_tier="flex", cost_nano_usd=5))

    assert (answer.completion_id, answer.model, answer.create_time_s) == ("c", "m", 7)
    assert [note.param for note in answer.notes] == ["top_k"]
    assert (answer.usage.total_token_count, answer.service_tier) == (9, "flex")
    assert answer.cost_nano_usd == 5


def test_text_and_reasoning_are_joined() -> None:
    """Each on its own; reasoning stands before the text."""
    message = (
        folded(
            ReasoningDelta("Let me "),
            TextDelta("4"),
            ReasoningDelta("see."),
            TextDelta("2"),
            ReasoningStateDelta("sealed"),
            RefusalDelta("No"),
            finish(),
        )
        .choices[0]
        .message
    )

    assert message.content == [ReasoningPart(text="Let me see."), TextPart(text="42")]
    assert (message.reasoning_state, message.refusal) == ("sealed", "No")


def test_tool_calls_are_joined_by_index() -> None:
    """Fragments of several calls may be interleaved."""
    calls = (
        folded(
            ToolCallDelta(call_index=0, id="a", name="f"),
            ToolCallDelta(call_index=1, id="b", name="g", type="custom"),
            ToolCallDelta(call_index=0, arguments='{"x"'),
            ToolCallDelta(call_index=1, arguments="free"),
            ToolCallDelta(call_index=0, arguments=":1}"),
            finish(reason="tool_calls"),
        )
        .choices[0]
        .message.tool_calls
    )

    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "free"),
    ]
    assert calls[1].type == "custom"


def test_choices_are_separate_and_sorted() -> None:
    """Their events may come in any order."""
    answer = folded(
        TextDelta("one", 1),
        TextDelta("zero", 0),
        finish(1, "length"),
        finish(0),
    )

    assert [choice.message.content for choice in answer.choices] == [
        [TextPart(text="zero")],
        [TextPart(text="one")],
    ]
    assert [choice.finish_reason for choice in answer.choices] == [
        "stop",
        "length",
    ]
    assert answer.choices[0].native_finish_reason == "end"


def test_logprobs_and_other_fields_are_merged() -> None:
    """Lists grow and strings are joined; of other values the last counts."""
    choice = folded(
        TextDelta("a", logprobs_json=b'{"content":[{"token":"a"}],"refusal":null}'),
        TextDelta("b", logprobs_json=b'{"content":[{"token":"b"}]}'),
        ExtraDelta(b'{"annotations":[1],"audio":{"transcript":"he"},"n":1}'),
        ExtraDelta(b'{"annotations":[2],"audio":{"transcript":"y"},"n":2}'),
        finish(),
    ).choices[0]

    assert msgspec.json.decode(choice.logprobs_json) == {
        "content": [{"token": "a"}, {"token": "b"}],
        "refusal": None,
    }
    assert msgspec.json.decode(choice.message.extra_json) == {
        "annotations": [1, 2],
        "audio": {"transcript": "hey"},
        "n": 2,
    }


def test_an_answer_may_be_empty() -> None:
    """A choice that only ends is still a choice."""
    answer = folded(finish())

    assert len(answer.choices) == 1
    assert not answer.choices[0].message.content


@pytest.mark.parametrize(
    "piece",
    [
        lambda _: RawContent(b"0123456789"),
        lambda _: TextDelta("a", logprobs_json=b'{"content":[1],"refusal":null}'),
        lambda _: ReasoningDelta(
            "a", details_json=b'[{"type":"reasoning.text","index":0,"text":"a"}]'
        ),
        lambda _: RefusalDelta("a"),
        lambda _: ToolCallDelta(call_index=0, arguments="1"),
        lambda number: ToolCallDelta(call_index=number, id=f"c{number}", name="f"),
    ],
)
def test_long_answers_take_time_in_proportion(piece: Callable[[int], Event]) -> None:
    """Four times as many pieces take about four times the CPU time, not sixteen times."""

    def least_s(count: int) -> float:
        pieces = [piece(number) for number in range(count)]
        spent = []
        for _ in range(3):
            begun = time.process_time()
            folded(*pieces)
            spent.append(time.process_time() - begun)
        return min(spent)

    assert least_s(40_000) < 10 * least_s(10_000)
