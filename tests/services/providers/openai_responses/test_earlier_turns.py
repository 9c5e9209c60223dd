"""Earlier answers in requests: each item of reasoning directly before what it led to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.domain.conversation import Message, OtherPart, TextPart
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.openai_responses import DIALECT
from services.providers.openai_responses.response import ResponsesDecoder
from tests.services.providers.anthropic.specs import assistant, call, result, user
from tests.services.providers.targets import target_of, told

MODEL = "gpt-5.6-terra"
TARGET = target_of(MODEL, "openai-responses")


def reasoning(number: int) -> dict[str, Any]:
    """Return an item of reasoning."""
    summary = [{"type": "summary_text", "text": f"Thought {number}."}]
    made = {"type": "reasoning", "id": f"rs_{number}", "summary": summary}
    return made | {"encrypted_content": f"seal-{number}"}


def message(number: int, text: str, **fields: Any) -> dict[str, Any]:
    """Return a message."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    made = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": content}
    return made | fields


def function_call(number: int) -> dict[str, Any]:
    """Return a tool call."""
    made = {"type": "function_call", "id": f"fc_{number}", "call_id": f"c{number}"}
    return made | {"name": "look", "arguments": "{}"}


SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}


def answered(*output: dict[str, Any], model: str = MODEL, details: bool = False) -> Message:
    """Return the message of an answer with this output."""
    body = json.dumps({"id": "resp_1", "status": "completed", "output": list(output)})
    decoder = ResponsesDecoder(model, details=details)
    return decoder.whole(body.encode()).choices[0].message


def sent(
    *messages: Message, to: Target = TARGET, strict: bool = False
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Encode a conversation. Returns its items, and the action noted for each parameter."""
    notes = Notes(strict=strict)
    spec = ChatCompletionSpec(model="m", messages=list(messages))
    body = json.loads(DIALECT.encode(spec, to, notes).body)
    return body["input"], told(notes)


OUTPUTS = [
    [reasoning(1), message(1, "Hello.")],
    [reasoning(1), function_call(1)],
    [reasoning(1), message(1, "I look."), reasoning(2), function_call(1), function_call(2)],
    [message(1, "First."), reasoning(1), function_call(1), message(2, "Then.")],
    [reasoning(1), SEARCH, reasoning(2), message(1, "It rains.", phase="final_answer")],
    [reasoning(1), reasoning(2), function_call(1)],
]


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_answer_comes_back_as_it_was(output: list[dict[str, Any]]) -> None:
    """With the order, the IDs and the seals of its items, by its text, calls and state alone."""
    given = answered(*output)
    kept = Message(
        role="assistant",
        content=[part for part in given.content if isinstance(part, TextPart)],
        tool_calls=given.tool_calls,
        reasoning_state=given.reasoning_state,
    )
    results = [result(each.id, "18") for each in given.tool_calls]

    items, notes = sent(user("Hi"), kept, *results, user("Go on"))

    assert items[1 : 1 + len(output)] == output
    assert not notes


def test_changed_text_loses_the_reasoning_before_it() -> None:
    """That before a call stays; the provider would refuse the other."""
    output = [reasoning(1), message(1, "I look."), reasoning(2), function_call(1)]
    given = answered(*output)
    changed = msgspec.structs.replace(given, content=[TextPart(text="I looked.")])

    items, notes = sent(user("Hi"), changed, result("c1", "18"))

    bare = {name: value for name, value in message(1, "I looked.").items() if name != "id"}
    assert items[1:4] == [bare, reasoning(2), function_call(1)]
    assert notes == {"messages": "dropped"}
    with pytest.raises(Failure, match="changed"):
        sent(user("Hi"), changed, result("c1", "18"), strict=True)


def test_a_missing_call_loses_the_reasoning_before_it() -> None:
    """And nothing else."""
    given = answered(reasoning(1), function_call(1), reasoning(2), function_call(2))
    changed = msgspec.structs.replace(given, tool_calls=given.tool_calls[1:])

    items, notes = sent(user("Hi"), changed, result("c2", "18"))

    assert items[1:3] == [reasoning(2), function_call(2)]
    assert notes == {"messages": "dropped"}


def test_reasoning_at_the_end_has_led_to_nothing() -> None:
    """As of an answer that was cut short: it cannot be sent."""
    given = answered(message(1, "Well"), reasoning(1))

    items, notes = sent(user("Hi"), given, user("Go on"))

    assert items[1] == message(1, "Well")
    assert items[2]["role"] == "user"
    assert notes == {"messages": "mapped"}


def test_reasoning_of_another_model_is_left_out() -> None:
    """It could not read it. A snapshot of the same model can."""
    output = [reasoning(1), function_call(1)]
    other = answered(*output, model="gpt-5.4")

    items, notes = sent(user("Hi"), other, result("c1", "18"))

    assert [item["type"] for item in items[1:]] == ["function_call", "function_call_output"]
    assert notes == {"messages": "mapped"}
    prefixed = replace(TARGET, model=f"openai/{MODEL}")
    items, notes = sent(user("Hi"), answered(*output), result("c1", "18"), to=prefixed)
    assert items[1:3] == output


def test_details_are_items_of_reasoning() -> None:
    """Those of OpenAI's format; an item for each ID, before what follows it in the message."""
    given = answered(reasoning(1), reasoning(2), function_call(1), details=True)
    kept = msgspec.structs.replace(given, reasoning_state="")

    items, notes = sent(user("Hi"), kept, result("c1", "18"))

    assert items[1:3] == [reasoning(1), reasoning(2)]
    assert items[3]["call_id"] == "c1"
    assert not notes


def test_details_of_others_are_left_out() -> None:
    """With a note, as are those that nothing seals."""
    signed = {"type": "reasoning.text", "text": "x", "signature": "s", "format": "anthropic"}
    unsealed = {"type": "reasoning.summary", "summary": "x", "format": "openai-responses-v1"}
    foreign = assistant("Yes.", reasoning_details_json=json.dumps([signed]).encode())
    plain = assistant("Yes.", reasoning_details_json=json.dumps([unsealed]).encode())

    assert sent(user("Hi"), foreign, user("So?"))[1] == {"messages": "dropped"}
    assert sent(user("Hi"), plain, user("So?"))[1] == {"reasoning_details": "mapped"}


def test_items_of_other_types_come_back() -> None:
    """At their place in the content, and once, also where the state has them."""
    wrapped = OtherPart(json=json.dumps({"type": "openai_responses_item", "item": SEARCH}).encode())
    searched = Message(role="assistant", content=[wrapped, TextPart(text="It rains.")])

    items, notes = sent(user("Hi"), searched, user("So?"))
    assert items[1] == SEARCH
    assert items[2]["content"][0]["text"] == "It rains."
    assert not notes

    given = answered(reasoning(1), SEARCH, message(1, "It rains."))
    both = msgspec.structs.replace(given, content=[wrapped, *given.content], extra_json=b"")
    items, _ = sent(user("Hi"), both, user("So?"))
    assert items[1:4] == [reasoning(1), SEARCH, message(1, "It rains.")]


def test_refusals_and_phases_come_back() -> None:
    """A refusal is a part of the message, a phase a member of it."""
    refused = Message(role="assistant", refusal="No.")
    comment = assistant("I look.", extra_json=b'{"phase":"commentary"}', tool_calls=[call("c1")])

    items, notes = sent(user("Hi"), refused, user("Please"), comment, result("c1", "18"))

    assert items[1]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert items[3]["phase"] == "commentary"
    assert not notes


def test_a_state_of_another_form_is_refused() -> None:
    """One whose details are not of this dialect."""
    given = answered(reasoning(1), message(1, "Hello."))
    broken = msgspec.structs.replace(given, reasoning_state=given.reasoning_state[:-8])

    with pytest.raises(Failure, match="not one that this service gave"):
        sent(user("Hi"), broken)


def test_members_of_answers_are_no_members_of_other_messages() -> None:
    """A strict request that has them elsewhere is refused."""
    extra = json.dumps({"annotations": [{"type": "file_path"}]}).encode()

    with pytest.raises(Failure, match="annotations"):
        sent(msgspec.structs.replace(user("Hi"), extra_json=extra), strict=True)


def test_members_of_answers_cost_a_strict_request_nothing() -> None:
    """Clients send them back as they came."""
    extra = {"annotations": [{"type": "file_path"}], "content_parts": [{"type": "x"}]}
    cited = assistant("Yes.", extra_json=json.dumps(extra).encode())

    items, notes = sent(user("Hi"), cited, user("So?"), strict=True)

    assert items[1]["content"][0]["text"] == "Yes."
    assert notes == {"messages[1].annotations": "mapped", "messages[1].content_parts": "mapped"}
    other = assistant("Yes.", extra_json=b'{"phase":["a"]}')
    assert sent(user("Hi"), other)[1] == {"messages[1].phase": "dropped"}
