from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.completions.reasoning_memory import ReasoningMemory
from services.domain.completion import Choice, WholeAnswer
from services.domain.conversation import ContentPart, Message, ReasoningPart, TextPart, ToolCall
from services.domain.events import Finished, ReasoningStateDelta, TextDelta, ToolCallDelta
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Target
from services.providers.translate.reasoning_state import Thought, pack
from services.storage.reasoning import LocalReasoning
from tests.services.providers.targets import target_of
from tests.stand.clock import FakeClock


def named(dialect: str, model: str, public_model: str) -> Target:
    """Return the target of a public model."""
    return replace(target_of(model, dialect), public_model=public_model)


CLAUDE = named("anthropic", "claude-sonnet-4-5", "house/claude")
CALL = ToolCall(id="toolu_1", name="weather", arguments='{"city": "Bern", "days": 2}')
STATE = "sealed"


@pytest.fixture
def memory() -> ReasoningMemory:
    """An empty memory."""
    return ReasoningMemory(LocalReasoning(FakeClock()))


def asking(question: str, *messages: Message) -> ChatCompletionSpec:
    """Return a request with a question, and what came after it."""
    asked = Message(role="user", content=[TextPart(text=question)])
    return ChatCompletionSpec(model="m", messages=[asked, *messages])


def answered(
    memory: ReasoningMemory,
    *calls: ToolCall,
    state: str = STATE,
    target: Target = CLAUDE,
    question: str = "",
) -> None:
    """Let the target answer a question of the account `a` with these calls."""
    message = Message(role="assistant", tool_calls=list(calls), reasoning_state=state)
    choice = Choice(message=message, finish_reason="tool_calls")
    memory.reader("a", asking(question), target).add_whole(WholeAnswer(choices=[choice]))


async def restored(
    memory: ReasoningMemory,
    *calls: ToolCall,
    target: Target = CLAUDE,
    question: str = "",
    **fields: Any,
) -> Message:
    """Return what becomes of an assistant's message with these calls, after a question."""
    sent = Message(role="assistant", tool_calls=list(calls), **fields)
    spec = asking(question, sent)
    recalled = await memory.recall("a", spec)
    return recalled.restored(spec, target).messages[1]


async def test_what_is_recalled_counts_as_prompt(memory: ReasoningMemory) -> None:
    """Once for each message, however many calls it has, and before a target is known."""
    second = ToolCall(id="toolu_2", name="clock")
    state = pack("anthropic", [Thought(text="I wonder. " * 1000, signature="s" * 3000)])
    answered(memory, CALL, second, state=state)
    message = Message(role="assistant", tool_calls=[CALL, second])

    once = (await memory.recall("a", asking("", message))).prompt_tokens()
    twice = (await memory.recall("a", asking("", message, message))).prompt_tokens()

    assert 3_500 < once < 8_000
    assert twice == 2 * once
    assert (await memory.recall("b", asking("", message))).prompt_tokens() == 0


async def test_nothing_but_the_reasoning_is_restored(memory: ReasoningMemory) -> None:
    """The text is what the caller sent."""
    answered(memory, CALL)

    content: list[ContentPart] = [TextPart(text="Edited."), ReasoningPart(text="Readable.")]
    found = await restored(memory, CALL, content=content)

    assert found == Message(
        role="assistant", content=content, tool_calls=[CALL], reasoning_state=STATE
    )


async def test_a_stream_is_remembered_when_it_is_complete(memory: ReasoningMemory) -> None:
    """By its calls as they were put together, each choice for itself."""
    reader = memory.reader("a", asking(""), CLAUDE)
    reader.add([TextDelta("Hm."), ToolCallDelta(id="toolu_1", name="weather", arguments='{"ci')])
    reader.add([ToolCallDelta(arguments='ty":"Bern","days":2}'), ReasoningStateDelta(STATE)])
    reader.add([ToolCallDelta(index=1, id="toolu_2", name="clock"), ReasoningStateDelta("2", 1)])
    assert not (await restored(memory, CALL)).reasoning_state

    reader.add([Finished()])

    assert (await restored(memory, CALL)).reasoning_state == STATE
    assert (await restored(memory, ToolCall(id="toolu_2", name="clock"))).reasoning_state == "2"


@pytest.mark.parametrize(
    "arguments",
    [
        '{"days":2,"city":"Bern"}',
        '{\n  "city": "B\\u0065rn",\n  "days": 2.0\n}',
    ],
)
async def test_arguments_in_another_form(memory: ReasoningMemory, arguments: str) -> None:
    """Clients parse them and encode them again."""
    answered(memory, CALL)

    sent = ToolCall(id="toolu_1", name="weather", arguments=arguments)

    assert (await restored(memory, sent)).reasoning_state == STATE


@pytest.mark.parametrize("arguments", ["", "{}", " "])
async def test_no_arguments(memory: ReasoningMemory, arguments: str) -> None:
    """Some clients write an empty object."""
    answered(memory, ToolCall(id="toolu_1", name="clock"))

    sent = ToolCall(id="toolu_1", name="clock", arguments=arguments)

    assert (await restored(memory, sent)).reasoning_state == STATE


@pytest.mark.parametrize(
    "call",
    [
        ToolCall(id="toolu_2", name="weather", arguments=CALL.arguments),
        ToolCall(id="toolu_1", name="clock", arguments=CALL.arguments),
        ToolCall(id="toolu_1", name="weather", arguments='{"city": "Rome"}'),
        ToolCall(id="toolu_1", name="weather", arguments='{"city": "Bern'),
        ToolCall(id="toolu_1", name="weather", arguments='{"city": 1e999, "x": "\ud800"}'),
    ],
)
async def test_another_call(memory: ReasoningMemory, call: ToolCall) -> None:
    """IDs such as `functions.weather:0` are those of many conversations."""
    answered(memory, CALL)

    assert not (await restored(memory, call)).reasoning_state


async def test_reasoning_that_was_sent_is_kept(memory: ReasoningMemory) -> None:
    """The caller's own state comes before what is remembered."""
    answered(memory, CALL)

    assert (await restored(memory, CALL, reasoning_state="own")).reasoning_state == "own"


@pytest.mark.parametrize(
    ("target", "suits"),
    [
        (named("anthropic", "claude-sonnet-4-5", "other/name"), True),
        (named("anthropic", "deployment-7", "house/claude"), True),
        (named("anthropic", "gemini-3-pro", "house/gemini"), False),
        (named("openrouter", "anthropic/claude-sonnet-4.5", "house/claude"), False),
    ],
)
async def test_only_its_own_kind_gets_it(
    memory: ReasoningMemory, target: Target, *, suits: bool
) -> None:
    """Another provider or model cannot read it."""
    answered(memory, CALL)

    found = await restored(memory, CALL, target=target)

    assert bool(found.reasoning_state) is suits


async def test_parallel_calls(memory: ReasoningMemory) -> None:
    """Any of them leads to the reasoning of all."""
    other = ToolCall(id="toolu_2", name="clock")
    answered(memory, CALL, other)

    assert (await restored(memory, CALL, other)).reasoning_state == STATE
    assert (await restored(memory, other)).reasoning_state == STATE


async def test_calls_of_two_turns_in_one_message(memory: ReasoningMemory) -> None:
    """Which reasoning came first is unknown."""
    other = ToolCall(id="toolu_2", name="clock")
    answered(memory, CALL)
    answered(memory, other, state="sealed later")

    assert not (await restored(memory, CALL, other)).reasoning_state


async def test_geminis_signatures(memory: ReasoningMemory) -> None:
    """They go back to their calls; one that the caller sent is kept."""
    gemini = named("openai", "gemini-3-pro", "house/gemini")
    signed = [
        ToolCall(id=f"call-{name}", name="clock", extra_content_json=content)
        for name, content in (("a", b'{"google":{"thought_signature":"s"}}'), ("b", b""))
    ]
    answered(memory, *signed, state="", target=gemini)

    bare = [ToolCall(id=call.id, name="clock") for call in signed]
    own = ToolCall(id="call-a", name="clock", extra_content_json=b'{"own":1}')

    assert (await restored(memory, *bare, target=gemini)).tool_calls == signed
    assert (await restored(memory, own, target=gemini)).tool_calls == [own]
    assert (await restored(memory, *bare)).tool_calls == bare


async def test_one_id_in_two_conversations(memory: ReasoningMemory) -> None:
    """The messages before the call tell them apart; where they were changed, nothing does."""
    for question in ("In Bern?", "In Rome?"):
        answered(memory, CALL, state=question, question=question)

    assert (await restored(memory, CALL, question="In Bern?")).reasoning_state == "In Bern?"
    assert (await restored(memory, CALL, question="In Rome?")).reasoning_state == "In Rome?"
    assert not (await restored(memory, CALL, question="In Oslo?")).reasoning_state
