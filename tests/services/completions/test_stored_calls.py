"""What is stored of a call survives an update of the gateway."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

import pytest
from google.protobuf import proto
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.contract.message_table import UntranslatableError
from services.completions.stored_calls import AnswerRecording, parse_answer, request_fingerprint
from services.domain.conversation import ImagePart, Message, TextPart, ToolCall
from services.domain.events import Batch, ChoiceFinished, Finished, Started, TextDelta
from services.domain.spec import ChatCompletionSpec, CompletionRequest, Thinking
from services.domain.usage import Usage
from services.storage.pepper import Pepper

STORED = bytes.fromhex(
    "250a1b0a190a0a63686174636d706c2d311203612f621a060880a4a7da060a06120412024869"
    "200a0e1a0c10011a08656e645f7475726e0a0e220c0a0808031001180440011807"
)
"""An answer as the first version has stored it."""

BATCHES: list[Batch] = [
    [
        Started(completion_id="chatcmpl-1", model="a/b", create_time_s=1_800_000_000),
        TextDelta("Hi"),
    ],
    [
        ChoiceFinished(finish_reason="stop", native_finish_reason="end_turn"),
        Finished(
            usage=Usage(
                prompt_token_count=3,
                completion_token_count=1,
                total_token_count=4,
                source="provider",
            ),
            cost_nano_usd=7,
        ),
    ],
]

REQUEST = CompletionRequest(
    spec=ChatCompletionSpec(
        model="a/b",
        messages=[
            Message(role="user", content=[TextPart(text="Hello"), ImagePart(uri="https://x/y")]),
            Message(role="assistant", tool_calls=[ToolCall(id="c", name="f", arguments="{}")]),
        ],
        max_tokens=0,
        temperature=0.5,
        thinking=Thinking(mode="enabled", budget_tokens=2000),
        metadata={"b": "2", "a": "1"},
        logit_bias={7: -1.5},
    ),
    parameter_policy="strict",
)


def test_an_earlier_answer_is_read() -> None:
    """Every event, as it was."""
    assert parse_answer(STORED) == BATCHES


def test_an_answer_is_written_as_before() -> None:
    """Replicas of the version before read it, too."""
    recording = AnswerRecording()
    for batch in BATCHES:
        recording.add(batch)

    assert recording.answer == STORED


def test_a_batch_of_unknown_events_is_left_out() -> None:
    """A newer replica may have stored it. The others are replayed."""
    empty = b"\x00"

    assert parse_answer(empty + STORED) == BATCHES


def test_a_finish_reason_of_a_newer_version_is_left_out() -> None:
    """The provider's own word for it stays, and all else."""
    newer = STORED.replace(bytes.fromhex("1a0c10011a08"), bytes.fromhex("1a0c10631a08"))
    assert newer != STORED

    first, (ended, finished) = parse_answer(newer)

    assert (first, finished) == (BATCHES[0], BATCHES[1][1])
    assert ended == ChoiceFinished(finish_reason="", native_finish_reason="end_turn")


NEWER_EVENTS = [
    pb.ChatCompletionChunk(
        delta=pb.CompletionDelta(tool_call=pb.ToolCallDelta(id="c", type=cast("Any", 99)))
    ),
    pb.ChatCompletionChunk(started=pb.CompletionStarted(raw_form=cast("Any", 99))),
]


@pytest.mark.parametrize("chunk", NEWER_EVENTS)
def test_an_answer_with_another_word_of_a_newer_version_is_not_read(
    chunk: pb.ChatCompletionChunk,
) -> None:
    """Without the word the answer would say something else."""
    stored = BytesIO()
    proto.serialize_length_prefixed(pb.StreamChatCompletionResponse(chunks=[chunk]), stored)

    with pytest.raises(UntranslatableError):
        parse_answer(stored.getvalue())


def test_the_digest_of_a_request_is_the_same_in_all_versions() -> None:
    """Otherwise a call that is repeated across an update would be refused."""
    assert request_fingerprint(REQUEST, Pepper(b"salt is not enough")) == (
        "0d7daf7e9f38f1f22a5c665cbcfd451fde04b91bfd13dc9359e84f69a094a237"
    )
