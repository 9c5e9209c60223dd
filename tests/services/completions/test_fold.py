"""A whole answer as the fold of its stream."""

from __future__ import annotations

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content

from services.completions.fold import Fold


def delta(index: int = 0, **fields: object) -> pb.ChatCompletionChunk:
    """Return a chunk with one delta."""
    return pb.ChatCompletionChunk(delta=pb.CompletionDelta(index=index, **fields))  # type: ignore[arg-type]


def finish(
    index: int = 0, reason: pb.FinishReason.ValueType = pb.FINISH_REASON_STOP
) -> pb.ChatCompletionChunk:
    """Return a chunk that ends a choice."""
    return pb.ChatCompletionChunk(
        choice_finished=pb.ChoiceFinished(
            index=index, finish_reason=reason, native_finish_reason="end"
        )
    )


def folded(*chunks: pb.ChatCompletionChunk) -> pb.CreateChatCompletionResponse:
    """Fold `chunks`, each in a batch of its own."""
    fold = Fold()
    for chunk in chunks:
        fold.add([chunk])
    return fold.answer


def test_the_answer_has_identity_and_usage_of_the_stream() -> None:
    """From its first and its last chunk."""
    started = pb.CompletionStarted(completion_id="c", model="m")
    started.create_time.seconds = 7
    started.notes.add(param="top_k", action=pb.NOTE_ACTION_DROPPED)
    finished = pb.CompletionFinished(service_tier="flex", cost_nano_usd=5)
    finished.usage.total_token_count = 9

    answer = folded(
        pb.ChatCompletionChunk(started=started), pb.ChatCompletionChunk(finished=finished)
    )

    assert (answer.completion_id, answer.model, answer.create_time.seconds) == ("c", "m", 7)
    assert [note.param for note in answer.notes] == ["top_k"]
    assert (answer.usage.total_token_count, answer.service_tier) == (9, "flex")
    assert answer.cost_nano_usd == 5


def test_text_and_reasoning_are_joined() -> None:
    """Each on its own; reasoning stands before the text."""
    message = (
        folded(
            delta(reasoning="Let me "),
            delta(text="4"),
            delta(reasoning="see."),
            delta(text="2"),
            delta(reasoning_state="sealed"),
            delta(refusal="No"),
            finish(),
        )
        .choices[0]
        .message
    )

    assert [part.WhichOneof("part") for part in message.content] == ["reasoning", "text"]
    assert message.content[0].reasoning.text == "Let me see."
    assert message.content[1].text == "42"
    assert (message.reasoning_state, message.refusal) == ("sealed", "No")


def test_tool_calls_are_joined_by_index() -> None:
    """Fragments of several calls may be interleaved."""
    calls = (
        folded(
            delta(tool_call=pb.ToolCallDelta(index=0, id="a", name="f")),
            delta(
                tool_call=pb.ToolCallDelta(index=1, id="b", name="g", type=content.TOOL_TYPE_CUSTOM)
            ),
            delta(tool_call=pb.ToolCallDelta(index=0, arguments='{"x"')),
            delta(tool_call=pb.ToolCallDelta(index=1, arguments="free")),
            delta(tool_call=pb.ToolCallDelta(index=0, arguments=":1}")),
            finish(reason=pb.FINISH_REASON_TOOL_CALLS),
        )
        .choices[0]
        .message.tool_calls
    )

    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "free"),
    ]
    assert calls[1].type == content.TOOL_TYPE_CUSTOM


def test_choices_are_separate_and_sorted() -> None:
    """Their chunks may come in any order."""
    answer = folded(
        delta(1, text="one"),
        delta(0, text="zero"),
        finish(1, pb.FINISH_REASON_LENGTH),
        finish(0),
    )

    assert [choice.message.content[0].text for choice in answer.choices] == ["zero", "one"]
    assert [choice.finish_reason for choice in answer.choices] == [
        pb.FINISH_REASON_STOP,
        pb.FINISH_REASON_LENGTH,
    ]
    assert answer.choices[0].native_finish_reason == "end"


def test_logprobs_and_other_fields_are_merged() -> None:
    """Lists grow and strings are joined; of other values the last counts."""
    choice = folded(
        delta(text="a", logprobs_json=b'{"content":[{"token":"a"}],"refusal":null}'),
        delta(text="b", logprobs_json=b'{"content":[{"token":"b"}]}'),
        delta(extra_json=b'{"annotations":[1],"audio":{"transcript":"he"},"n":1}'),
        delta(extra_json=b'{"annotations":[2],"audio":{"transcript":"y"},"n":2}'),
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
