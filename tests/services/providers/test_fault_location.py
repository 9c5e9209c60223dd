"""A refused call names the path of what its provider has no form for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    ImagePart,
    Message,
    OtherPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ChatCompletionSpec, Tool
from services.errors import Failure
from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.fault_location import locate
from services.providers.registry import DIALECTS
from tests.services.providers.anthropic.specs import assistant, call, result, user
from tests.services.providers.targets import target_of

MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "openai": "gpt-4o",
    "openai-responses": "gpt-5.6-terra",
    "openrouter": "some-model",
}
TALK = [user("Hi"), assistant("So?", tool_calls=[call("a"), call("b")])]
RESULTS = [result("a", "1"), result("b", "2")]
MARK = b"5"


def refused_param(dialect: str, spec: ChatCompletionSpec, *, strict: bool = False) -> str:
    """Return the located `param` of a spec that cannot be encoded."""
    target = target_of(MODELS[dialect], dialect)
    with pytest.raises(Failure) as refused:
        DIALECTS[dialect].encode(spec, target, Notes(strict=strict))
    locate(refused.value, spec, DIALECTS[dialect], target, strict=strict)
    return refused.value.param


def spec_of(*messages: Message, tools: Sequence[Tool] = ()) -> ChatCompletionSpec:
    """Build a spec."""
    return ChatCompletionSpec(model="m", messages=[*messages], tools=[*tools])


def parts(*found: ContentPart) -> Message:
    """Build a user's message of a text and these parts."""
    return Message(role="user", content=[TextPart(text="Look:"), *found])


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("count", [0, 1, 2, 5, 40])
def test_message_is_found_among_others(dialect: str, count: int) -> None:
    """Wherever it is, also if messages are merged or added on the way."""
    sealed = replace(assistant("Well"), reasoning_state="?")
    others = [assistant("a"), user("b"), user("c")] * 14

    param = refused_param(dialect, spec_of(*others[:count], sealed, *others))

    assert param == f"messages[{count}].reasoning_state"


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_part_is_found(dialect: str) -> None:
    """An image whose address no provider can fetch, after one that it can."""
    good, bad = ImagePart(uri="https://a.example/a.png"), ImagePart(uri="ftp://a.example/a.png")

    assert refused_param(dialect, spec_of(user("Hi"), parts(good, bad))) == "messages[1].content[2]"


@pytest.mark.parametrize(
    "part", [AudioPart(base64="AAAA", format="wav"), OtherPart(json=b'{"type":"video_url"}')]
)
@pytest.mark.parametrize("strict", [True, False])
def test_part_without_a_form_is_found(part: ContentPart, strict: bool) -> None:
    """In strict mode, too."""
    spec = spec_of(*TALK, *RESULTS, parts(part))

    assert refused_param("anthropic", spec, strict=strict) == "messages[4].content[1]"


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_tool_call_is_found(dialect: str) -> None:
    """By what the provider wants back with it."""
    bad = ToolCall(id="c", name="look", extra_content_json=b"5")
    asked = assistant(tool_calls=[call("a"), call("b"), bad])

    param = refused_param(dialect, spec_of(user("Hi"), asked, *RESULTS, result("c", "3")))

    assert param == "messages[1].tool_calls[2].extra_content"


@pytest.mark.parametrize("dialect", ["anthropic", "openrouter"])
def test_mark_is_found(dialect: str) -> None:
    """On a message, a part and a tool; that of the request has a path already."""
    on_part = TextPart(text="a", cache_control_json=MARK)
    on_tool = Tool(name="f", cache_control_json=MARK)

    marked = replace(user("a"), cache_control_json=MARK)
    assert refused_param(dialect, spec_of(user("Hi"), marked)) == "messages[1].cache_control"
    assert refused_param(dialect, spec_of(user("Hi"), parts(on_part))) == (
        "messages[1].content[1].cache_control"
    )
    assert refused_param(dialect, spec_of(user("Hi"), tools=[Tool(name="a"), on_tool])) == (
        "tools[1].cache_control"
    )
    whole = replace(spec_of(user("Hi")), cache_control_json=MARK)
    assert refused_param(dialect, whole) == "cache_control"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        (Tool(name="b", parameters_json=b"[1]"), "tools[2].function.parameters"),
        (Tool(name="b", type="custom"), "tools[2]"),
    ],
)
def test_tool_is_found(tool: Tool, param: str) -> None:
    """By its schema, or its type."""
    spec = spec_of(*TALK, *RESULTS, tools=[Tool(name="look"), Tool(name="a"), tool, Tool(name="c")])

    assert refused_param("anthropic", spec) == param


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec_of(user(" "), user("")), id="all empty"),
        pytest.param(spec_of(user("Hi"), assistant("Well,")), id="prefill"),
    ],
)
def test_fault_of_a_whole_conversation_has_its_name(spec: ChatCompletionSpec) -> None:
    """No message is to blame by itself."""
    target = target_of("claude-opus-5")
    with pytest.raises(Failure) as refused:
        DIALECTS["anthropic"].encode(spec, target, Notes())

    locate(refused.value, spec, DIALECTS["anthropic"], target, strict=False)

    assert refused.value.param == "messages"


def test_search_takes_as_long_as_a_request() -> None:
    """The messages that are encoded on the way are about as many as the request has."""
    dialect = _Counted(DIALECTS["openai"])
    sealed = replace(assistant("Well"), reasoning_state="?")
    spec = spec_of(*[user("a")] * 1500, sealed)
    target = target_of("gpt-4o", "openai")
    with pytest.raises(Failure) as refused:
        DIALECTS["openai"].encode(spec, target, Notes())

    locate(refused.value, spec, dialect, target, strict=False)

    assert refused.value.param == "messages[1500].reasoning_state"
    assert dialect.messages <= 1600


class _Counted:
    """Dialect that counts the messages that it encodes."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.messages = 0
        self.decoder, self.error = dialect.decoder, dialect.error
        self.auth_headers = dialect.auth_headers

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        self.messages += len(spec.messages)
        return self._dialect.encode(spec, target, notes, stream=stream)
