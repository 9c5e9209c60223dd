"""What is stored of a call survives an update of the gateway."""

from __future__ import annotations

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
    assert list(parse_answer(STORED)) == BATCHES


def test_an_answer_is_written_as_before() -> None:
    """Replicas of the version before read it, too."""
    recording = AnswerRecording()
    for batch in BATCHES:
        recording.add(batch)

    assert recording.answer == STORED


def test_a_batch_of_unknown_events_is_left_out() -> None:
    """A newer replica may have stored it. The others are replayed."""
    empty = b"\x00"

    assert list(parse_answer(empty + STORED)) == BATCHES


def test_the_digest_of_a_request_is_the_same_in_all_versions() -> None:
    """Otherwise a call that is repeated across an update would be refused."""
    assert request_fingerprint(REQUEST, Pepper(b"salt is not enough")) == (
        "0d7daf7e9f38f1f22a5c665cbcfd451fde04b91bfd13dc9359e84f69a094a237"
    )
