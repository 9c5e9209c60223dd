"""Requests of OpenAI's Responses as specs."""

from __future__ import annotations

import base64
import gc
import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.openai_responses.decode import decode, decode_count
from gateway.surfaces.openai_responses.reasoning_item import Shown
from gateway.surfaces.openai_responses.responses_request import ResponsesRequest
from services.common.sealed_blocks import Redacted, SealedCall, Text, Thought, read_state
from services.domain.conversation import (
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ChatCompletionSpec, ToolChoice

CONFIG = EdgeConfig()
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()


def request(**fields: Any) -> ResponsesRequest:
    """The request of a model and these fields."""
    return decode(json.dumps({"model": "m", "input": "Hi.", **fields}).encode(), CONFIG)


def spec(**fields: Any) -> ChatCompletionSpec:
    """The spec of that request."""
    return request(**fields).spec


def messages(*items: Any) -> list[Message]:
    """The messages of these items."""
    return spec(input=list(items)).messages


def extra(**fields: Any) -> dict[str, Any]:
    """The unknown fields of a request."""
    found: dict[str, Any] = json.loads(spec(**fields).extra_json or b"{}")
    return found


def refused(**fields: Any) -> ApiError:
    """The refusal of a request with these fields."""
    with pytest.raises(ApiError) as refusal:
        request(**fields)
    assert refusal.value.status == 400
    return refusal.value


def user(text: str) -> Message:
    """A message of the user."""
    return Message(role="user", content=[TextPart(text=text)])


def test_a_text_is_a_message_of_the_user() -> None:
    """Instructions come before it."""
    found = spec(input="The tide?", instructions="Be brief.")
    assert [message.role for message in found.messages] == ["system", "user"]
    assert found.messages[1] == user("The tide?")


def test_messages_with_and_without_type() -> None:
    """The short form has no `type`, and a text as content."""
    long = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A"}]}
    assert messages({"role": "user", "content": "A"}) == messages(long) == [user("A")]
    (told,) = messages({"role": "developer", "content": "A"})
    assert told.role == "developer"


def test_each_part_of_a_message_is_decoded() -> None:
    """Texts, an image by value, and files by value, URL and ID have parts."""
    parts = [
        {"type": "input_text", "text": "A"},
        {"type": "text", "text": "B"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "low"},
        {"type": "input_file", "file_data": "data:text/plain;base64,QQ==", "filename": "a.txt"},
        {"type": "input_file", "file_url": "https://a.example/a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
    ]
    (message,) = messages({"role": "user", "content": parts})
    assert message.content == [
        TextPart(text="A"),
        TextPart(text="B"),
        ImagePart(base64=PNG, mime_type="image/png", detail="low"),
        FilePart(uri="data:text/plain;base64,QQ==", filename="a.txt"),
        FilePart(uri="https://a.example/a.pdf"),
        FilePart(file_id="file-1"),
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_text", "text": "A"},
        {"type": "text", "text": "A"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        {"type": "input_other"},
    ],
    ids=lambda part: "_".join(part)[5:],
)
def test_every_part_keeps_its_cache_mark(part: dict[str, Any]) -> None:
    """`cache_control` of Anthropic's clients is a mark of the part, whatever its type."""
    marked = part | {"cache_control": {"type": "ephemeral"}}
    (message,) = messages({"role": "user", "content": [marked]})
    (found,) = message.content
    assert json.loads(found.cache_control_json) == {"type": "ephemeral"}


def test_a_refusal_of_an_earlier_answer_keeps_its_cache_mark() -> None:
    """It is no part, so the message has the mark."""
    mark = {"type": "ephemeral"}
    refusal = {"type": "refusal", "refusal": "No.", "cache_control": mark}
    (message,) = messages({"role": "assistant", "content": [refusal]})
    assert message.refusal == "No."
    assert json.loads(message.cache_control_json) == mark


@pytest.mark.parametrize("detail", [{}, {"detail": "high"}])
def test_an_uploaded_image_stays_as_it_is(detail: dict[str, str]) -> None:
    """It gets no detail that its client has not named."""
    part = {"type": "input_image", "file_id": "file-1", **detail}
    (message,) = messages({"role": "user", "content": [part]})
    (found,) = message.content
    assert isinstance(found, OtherPart)
    assert json.loads(found.json) == part


def test_a_turn_is_one_message() -> None:
    """Reasoning, text and calls of one answer, with the results after it."""
    found = messages(
        {"role": "user", "content": "A"},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed"}
        | {"content": [{"type": "output_text", "text": "B", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free text"},
        {"type": "function_call_output", "call_id": "c1", "output": "C"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [PART]},
    )
    assert found[1] == Message(
        role="assistant",
        content=[TextPart(text="B")],
        tool_calls=[
            ToolCall(id="c1", name="f", arguments="{}", type="function"),
            ToolCall(id="c2", name="g", arguments="free text", type="custom"),
        ],
    )
    results = [(each.role, each.tool_call_id, each.content) for each in found[2:]]
    assert results == [("tool", "c1", [TextPart(text="C")]), ("tool", "c2", [TextPart(text="D")])]


PART = {"type": "input_text", "text": "D"}


def test_two_messages_of_the_assistant_stay_two() -> None:
    """A call or reasoning between them would join them."""
    said = {"role": "assistant", "content": "A"}
    asked = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert len(messages(said, said)) == 2
    assert len(messages(said, asked, said)) == 1


def test_a_refusal_is_the_refusal_of_its_message() -> None:
    """It is no part of the content."""
    part = {"type": "refusal", "refusal": "No."}
    (message,) = messages({"type": "message", "role": "assistant", "content": [part]})
    assert (message.refusal, message.content) == ("No.", [])


def test_reasoning_of_openai_has_openrouters_form() -> None:
    """Its ID, its summary and its seal are kept."""
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "One."}],
        "content": None,
        "encrypted_content": "c2VhbA==",
    }
    (message,) = messages(item)
    origin = {"format": "openai-responses-v1", "id": "rs_1"}
    assert json.loads(message.reasoning_details_json) == [
        {"type": "reasoning.summary", "summary": "One.", "index": 0, **origin},
        {"type": "reasoning.encrypted", "data": "c2VhbA==", "index": 1, **origin},
    ]


def test_each_reasoning_of_openai_is_before_what_it_led_to() -> None:
    """Reasoning after a text or a call begins a message, even in one turn."""
    first: dict[str, Any] = {"type": "reasoning", "summary": [], "encrypted_content": "rs_1"}
    second = {**first, "encrypted_content": "rs_2"}
    said = {"role": "assistant", "content": "A"}
    asked = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    found = messages(first, said, second, asked)
    details = [json.loads(message.reasoning_details_json) for message in found]
    assert [[item["data"] for item in each] for each in details] == [["rs_1"], ["rs_2"]]
    assert [len(message.tool_calls) for message in found] == [0, 1]


def test_open_reasoning_is_a_part() -> None:
    """A summary without a seal is one, too."""
    text = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    for item in (text, summary):
        (message,) = messages({**item, "id": "rs_1"})
        assert message.content == [ReasoningPart(text="Hm.")]


def sealed(*details: dict[str, Any]) -> dict[str, Any]:
    """Reasoning with a seal of these items."""
    seal = base64.b64encode(json.dumps(details).encode()).decode()
    return {"type": "reasoning", "summary": [], "encrypted_content": f"pomogator.details.{seal}"}


def test_interleaved_reasoning_of_anthropic_keeps_its_places() -> None:
    """Fragments of a seal are put together, and the state says where the reasoning was."""
    own = {"format": "anthropic-claude-v1", "index": 0}
    text = {"type": "reasoning.text", **own}
    (message,) = messages(
        sealed({**text, "text": "H"}, {**text, "text": "m."}, {**text, "signature": "c2ln"}),
        {"role": "assistant", "content": "Well."},
        sealed({"type": "reasoning.encrypted", "data": "eA==", **own}),
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    )
    assert list(read_state(message.reasoning_state).blocks) == [
        Thought(text="Hm.", signature="c2ln"),
        Text(length=5),
        Redacted(data="eA=="),
        SealedCall(id="c"),
    ]
    kept = json.loads(message.reasoning_details_json)
    assert [(item["index"], item.get("signature")) for item in kept] == [(0, "c2ln"), (1, None)]


@pytest.mark.parametrize("seal", ["%%", "WzFd", "e30=", "W10", "eyJhIjoxLCJhIjoyfQ=="])
def test_a_broken_seal_is_refused(seal: str) -> None:
    """The error names it."""
    item = {"type": "reasoning", "summary": [], "encrypted_content": f"pomogator.details.{seal}"}
    assert refused(input=[item]).param == "input[0].encrypted_content"


def test_items_of_other_types_are_kept() -> None:
    """OpenAI's own Responses take them."""
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}
    (message,) = messages(item)
    (part,) = message.content
    assert isinstance(part, OtherPart)
    assert json.loads(part.json) == {"type": "openai_responses_item", "item": item}


def test_a_reference_is_not_found() -> None:
    """No item is kept. A conversation goes on without reasoning, which has a note."""
    error = refused(input=[{"type": "item_reference", "id": "msg_1"}])
    assert (error.param, "store" in error.message) == ("input[0].id", True)
    (message,) = messages({"type": "item_reference", "id": "rs_1"})
    assert json.loads(message.extra_json) == {"item_reference": "rs_1"}


def test_each_tool_is_decoded() -> None:
    """Functions are flat; a grammar has the form of chat completions."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    found = spec(
        tools=[
            {
                "type": "function",
                "name": "f",
                "description": "F.",
                "parameters": {"type": "object"},
            },
            {"type": "custom", "name": "g", "format": grammar},
            {"type": "web_search", "external_web_access": False},
        ]
    ).tools
    assert [(tool.type, tool.name, tool.strict) for tool in found] == [
        ("function", "f", None),
        ("custom", "g", None),
        ("", "", None),
    ]
    assert json.loads(found[1].parameters_json) == {
        "type": "grammar",
        "grammar": {"syntax": "lark", "definition": "start: /a/"},
    }
    assert json.loads(found[2].other_json)["external_web_access"] is False


@pytest.mark.parametrize(
    ("schema", "is_strict"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, None),
        ({"type": "object", "properties": {}}, None),
        (None, None),
    ],
)
def test_functions_are_strict_by_default(schema: Any, is_strict: bool | None) -> None:
    """Their schema must allow that."""
    tool = {"type": "function", "name": "f", "parameters": schema}
    assert spec(tools=[tool]).tools[0].strict is is_strict
    assert spec(tools=[{**tool, "strict": False}]).tools[0].strict is False


def test_namespaces_are_flat() -> None:
    """The first tool has the description of its namespace. Calls and the choice have flat names."""
    inner = [{"type": "function", "name": "read", "description": "Read."}]
    space = {"type": "namespace", "name": "files", "description": "Files.", "tools": inner}
    called = {"type": "function_call", "call_id": "c", "name": "read", "namespace": "files"}
    made = request(
        tools=[space],
        input=[called],
        tool_choice={"type": "function", "name": "read", "namespace": "files"},
    )
    (tool,) = made.spec.tools
    assert (tool.name, tool.description) == ("files__read", "Files.\n\nRead.")
    assert made.spec.messages[0].tool_calls[0].name == "files__read"
    assert made.spec.tool_choice == ToolChoice(mode="named", names=["files__read"], type="function")
    assert tuple(made.form.names["files__read"]) == ("read", "files")


@pytest.mark.parametrize("plain_first", [False, True])
def test_two_tools_with_one_flat_name_are_refused(plain_first: bool) -> None:
    """A call of it could mean either."""
    plain = {"type": "function", "name": "files__read"}
    inner = [{"type": "function", "name": "read"}]
    space = {"type": "namespace", "name": "files", "tools": inner}
    tools = [plain, space] if plain_first else [space, plain]
    assert refused(tools=tools).param == ("tools[1].tools[0]" if plain_first else "tools[1]")


def test_long_names_are_cut() -> None:
    """Each becomes another name, of the length that all providers take."""
    inner = [{"type": "function", "name": f"{'n' * 60}{end}"} for end in "ab"]
    space = {"type": "namespace", "name": "files", "description": "", "tools": inner}
    names = [tool.name for tool in spec(tools=[space]).tools]
    assert [len(name) for name in names] == [64, 64]
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("required", ToolChoice(mode="required")),
        ({"type": "custom", "name": "g"}, ToolChoice(mode="named", names=["g"], type="custom")),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            ToolChoice(mode="auto", names=["f"]),
        ),
        ({"type": "web_search"}, ToolChoice(mode="", other_json=b'{"type":"web_search"}')),
    ],
)
def test_each_tool_choice_is_decoded(given: Any, made: ToolChoice) -> None:
    """It is a mode, a tool, some tools, or one that the provider runs."""
    assert spec(tool_choice=given).tool_choice == made


def test_the_response_format_is_flat() -> None:
    """Its members are those of the schema."""
    form = {"type": "json_schema", "name": "city", "schema": {"type": "object"}, "strict": True}
    found = spec(text={"format": form, "verbosity": "low"})
    assert found.response_format is not None
    assert (found.response_format.name, found.response_format.strict) == ("city", True)
    assert found.verbosity == "low"


def test_a_form_without_a_schema_is_repeated() -> None:
    """The schema is null in the response. The service refuses it."""
    repeated = request(text={"format": {"type": "json_schema", "name": "s"}}).form.repeated
    assert json.loads(msgspec.json.encode(repeated["text"]))["format"]["schema"] is None


def test_reasoning_is_shown_and_sealed_on_request() -> None:
    """A summary asks for its text, `include` for its seal."""
    made = request(
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    )
    assert made.spec.reasoning_effort == "low"
    assert made.spec.thinking is not None
    assert made.spec.thinking.summary == "auto"
    assert made.form.shown == Shown(text=True, seals=True)
    assert request(store=False).form.shown == Shown(text=False, seals=False)
    assert request().form.shown == Shown(text=False, seals=True)


def test_fields_have_their_names_in_the_spec() -> None:
    """Some have another name there, others the same."""
    found = spec(
        max_output_tokens=50,
        top_logprobs=3,
        include=["message.output_text.logprobs"],
        safety_identifier="u",
        prompt_cache_key="k",
        metadata={"a": "b"},
        service_tier="flex",
        parallel_tool_calls=False,
    )
    assert (found.max_tokens, found.logprobs, found.top_logprobs) == (50, True, 3)
    assert (found.user, found.prompt_cache_key, found.metadata) == ("u", "k", {"a": "b"})
    assert (found.service_tier, found.parallel_tool_calls) == ("flex", False)


def test_unknown_fields_are_kept() -> None:
    """Only fields that ask for the default behaviour are dropped."""
    assert extra(client_metadata={"a": 1}, max_tool_calls=3, text={"odd": 1}) == {
        "client_metadata": {"a": 1},
        "max_tool_calls": 3,
        "text": {"odd": 1},
    }
    assert extra(store=False, background=False, truncation="disabled") == {}
    assert extra(stream_options={"include_obfuscation": False}) == {}
    assert extra(store=True, truncation="auto") == {"store": True, "truncation": "auto"}
    assert extra(include=["file_search_call.results"]) == {"include": ["file_search_call.results"]}


def test_unknown_members_of_items_are_kept() -> None:
    """They may be at any depth."""
    (message,) = messages(
        {"type": "message", "role": "assistant", "phase": "commentary"}
        | {"content": [{"type": "output_text", "text": "A", "odd": 1}]}
    )
    assert json.loads(message.extra_json) == {"phase": "commentary"}
    assert json.loads(message.content[0].extra_json) == {"odd": 1}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id",
            "previous_response_not_found",
        ),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"input": None}, "input", "invalid_value"),
        ({"input": 7}, "input", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0]", "invalid_value"),
        ({"input": [{"role": "odd", "content": "A"}]}, "input[0].role", "invalid_value"),
        ({"include": "a"}, "include", "invalid_value"),
        ({"reasoning": {"summary": "odd"}}, "reasoning.summary", "invalid_value"),
    ],
)
def test_a_refusal_names_the_field_at_fault(fields: dict[str, Any], param: str, code: str) -> None:
    """The path is that of the request."""
    error = refused(**fields)
    assert (error.param, error.code) == (param, code)


def test_the_form_of_the_answer_keeps_no_body() -> None:
    """A stream may be long, and its request large."""
    content = "x" * (4 * 2**20)
    form = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}
    tracemalloc.start()
    try:
        kept = request(
            input=[{"role": "user", "content": content}],
            instructions="Be brief.",
            tools=[{"type": "function", "name": "f"}, {"type": "web_search"}],
            text={"format": form},
        ).form
        del content
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2**20
    finally:
        tracemalloc.stop()
    assert kept.repeated["instructions"] == msgspec.Raw(b'"Be brief."')


def test_a_count_needs_no_other_fields() -> None:
    """The prompt is enough."""
    body = {"model": "m", "input": "Hi.", "tools": [{"type": "function", "name": "f"}]}
    found = decode_count(json.dumps(body).encode(), CONFIG)
    assert (len(found.messages), len(found.tools)) == (1, 1)
