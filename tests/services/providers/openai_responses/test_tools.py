"""Tools in requests to OpenAI's Responses: flat, with results among the items."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from services.domain.conversation import (
    ImagePart,
    Message,
    TextPart,
    ToolCall,
)
from services.domain.spec import Tool, ToolChoice
from services.errors import Failure
from tests.services.providers.anthropic.specs import assistant, call, result, user
from tests.services.providers.openai_responses.requests import sent, target


def test_results_of_tools() -> None:
    """A result with pictures is a list of parts, and one that failed begins with `Error: `."""
    picture = ImagePart(uri="https://a.example/a.png")
    asked = assistant(tool_calls=[call("c1"), call("c2"), call("c3")])
    shown = Message(role="tool", tool_call_id="c1", content=[TextPart(text="Look"), picture])
    failed = msgspec.structs.replace(result("c2", "no such city"), is_error=True)
    drawn = Message(role="tool", tool_call_id="c3", content=[picture], is_error=True)

    body, notes = sent(user("Hi"), asked, shown, failed, drawn)

    image = {"type": "input_image", "image_url": "https://a.example/a.png"}
    assert [each["output"] for each in body["input"][4:]] == [
        [{"type": "input_text", "text": "Look"}, image],
        "Error: no such city",
        [{"type": "input_text", "text": "Error: "}, image],
    ]
    assert notes == {"messages": "mapped"}


def test_custom_tools() -> None:
    """Their grammars are flat here, and their calls and results have types of their own."""
    grammar = {"syntax": "lark", "definition": 'start: "x"'}
    tool = Tool(
        name="patch",
        type="custom",
        parameters_json=json.dumps({"type": "grammar", "grammar": grammar}).encode(),
    )
    made = ToolCall(id="c1", name="patch", arguments="x", type="custom")

    body, notes = sent(user("Hi"), assistant(tool_calls=[made]), result("c1", "done"), tools=[tool])

    assert body["tools"] == [
        {"type": "custom", "name": "patch", "format": {"type": "grammar", **grammar}}
    ]
    assert body["input"][1:] == [
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    ]
    assert not notes


@pytest.mark.parametrize("strict", [None, False, True])
def test_arguments_are_held_to_a_schema_only_where_asked(strict: bool | None) -> None:
    """The API would hold them to it without a word."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tool = Tool(name="f", description="F.", parameters_json=json.dumps(schema).encode())

    body, _ = sent(tools=[msgspec.structs.replace(tool, strict=strict)])

    assert body["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": "F.",
            "parameters": schema,
            "strict": bool(strict),
        }
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(mode="auto"), "auto"),
        (ToolChoice(mode="none"), "none"),
        (ToolChoice(mode="required"), "required"),
        (ToolChoice(mode="named", names=["f"]), {"type": "function", "name": "f"}),
        (
            ToolChoice(mode="required", names=["f"]),
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}],
            },
        ),
        (ToolChoice(mode="", other_json=b'{"type":"web_search"}'), {"type": "web_search"}),
    ],
)
def test_tool_choice(choice: ToolChoice, expected: object) -> None:
    """Flat, without the object in between."""
    tools = [Tool(name="f"), Tool(name="", other_json=b'{"type":"web_search"}')]

    assert sent(tools=tools, tool_choice=choice)[0]["tool_choice"] == expected


def test_tools_that_the_provider_runs() -> None:
    """Those that reach data or addresses only where the channel names them; none without money."""
    tools = [
        Tool(name="", other_json=json.dumps({"type": kind}).encode())
        for kind in ("web_search", "local_shell", "mcp")
    ]

    body, notes = sent(tools=tools)
    assert [tool["type"] for tool in body["tools"]] == ["web_search", "local_shell"]
    assert notes == {"tools[2]": "dropped"}

    body, _ = sent(tools=tools, to=target(pass_through=("harmless", "mcp")))
    assert [tool["type"] for tool in body["tools"]] == ["web_search", "local_shell", "mcp"]

    body, _ = sent(tools=tools, to=replace(target(), sends_provider_tools=False))
    assert [tool["type"] for tool in body["tools"]] == ["local_shell"]

    space = [Tool(name="", other_json=b'{"type":"namespace","tools":[{"type":"mcp"}]}')]
    body, notes = sent(tools=space)
    assert (body.get("tools"), notes) == (None, {"tools[0]": "dropped"})

    priced = replace(target(), sends_provider_tools=False, charged_tools={"web_search"})
    body, _ = sent(tools=tools, to=priced)
    assert [tool["type"] for tool in body["tools"]] == ["web_search", "local_shell"]


def test_a_choice_of_a_tool_that_is_not_sent() -> None:
    """It is refused: the provider would do so."""
    tools = [Tool(name="f"), Tool(name="", other_json=b'{"type":"mcp"}')]
    chosen = ToolChoice(mode="", other_json=b'{"type":"mcp"}')

    with pytest.raises(Failure, match="tools of this type"):
        sent(tools=tools, tool_choice=chosen)
