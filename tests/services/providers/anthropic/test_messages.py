from __future__ import annotations

import base64
import json

import msgspec
import pytest
from msgspec.structs import replace

from services.domain.conversation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
)
from services.domain.spec import Tool
from services.errors import Failure
from services.providers.translate.reasoning_state import (
    Block,
    Redacted,
    SealedCall,
    Text,
    Thought,
    pack,
)
from tests.services.providers.anthropic.specs import (
    assistant,
    call,
    result,
    sent,
    system,
    user,
)
from tests.services.providers.targets import target_of

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()


def says(text: str) -> dict[str, str]:
    """A block of text."""
    return {"type": "text", "text": text}


def test_instructions_move_to_system() -> None:
    """System and developer messages at the beginning become `system`, part by part."""
    developer = Message(role="developer", content=[TextPart(text="Be brief.")])
    body, notes = sent(system("Be kind.", "Be true."), developer, user("Hi"))
    assert body["system"] == [says("Be kind."), says("Be true."), says("Be brief.")]
    assert len(body["messages"]) == 1
    assert notes == {}


def test_later_instructions() -> None:
    """In the middle they are marked in the user's turn, or stand alone where that is legal."""
    talk = [user("Hi"), system("Now in French."), user("Bye")]
    body, notes = sent(*talk)
    (turn,) = body["messages"]
    marked = says("<system>\nNow in French.\n</system>")
    assert turn["content"] == [says("Hi"), marked, says("Bye")]
    assert notes == {"messages": "mapped"}
    body, notes = sent(*talk, target=target_of("claude-opus-4-8"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "system", "user"]
    assert notes == {}


def test_nothing_stands_between_calls_and_results() -> None:
    """Instructions between calls and their results wait until the results are complete."""
    talk = [
        user("Hi"),
        assistant(tool_calls=[call("a"), call("b")]),
        system("Quick!"),
        result("a", "1"),
        result("b", "2"),
    ]
    body, _ = sent(*talk)
    kinds = [block["type"] for block in body["messages"][2]["content"]]
    assert kinds == ["tool_result", "tool_result", "text"]


def test_results_come_before_the_rest_of_their_turn() -> None:
    """The API refuses text between them, which a user may have said while a tool was running."""
    calls = assistant(tool_calls=[call("a"), call("b")])
    talk = [user("Hi"), calls, result("b", "2"), user("Still there?"), result("a", "1"), user("Go")]
    body, _ = sent(*talk)
    content = body["messages"][2]["content"]
    assert [block.get("tool_use_id") for block in content] == ["b", "a", None, None]
    assert content[2:] == [says("Still there?"), says("Go")]


def test_turns_of_one_role_are_one() -> None:
    """Neighbours of one role are merged block by block, empty ones vanish."""
    talk = [user("a"), user("b", " "), assistant("c"), assistant("", "d"), user("e")]
    body, notes = sent(*talk)
    assert body["messages"] == [
        {"role": "user", "content": [says("a"), says("b")]},
        {"role": "assistant", "content": [says("c"), says("d")]},
        {"role": "user", "content": [says("e")]},
    ]
    assert notes == {}


def test_the_user_begins() -> None:
    """A conversation that the model begins, or without any turn, gets a user's turn."""
    body, notes = sent(assistant("Hello!"), user("Hi"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert notes == {"messages": "mapped"}
    body, notes = sent(system("Tell a joke."))
    assert body["messages"] == [{"role": "user", "content": [says("Tell a joke.")]}]
    assert ("system" in body, notes) == (False, {"messages": "mapped"})


def test_a_tool_loop() -> None:
    """Calls become blocks of the model's turn; results come first in the user's next one."""
    talk = [
        user("Weather?"),
        assistant("I look.", tool_calls=[call("a", '{"city": "Oslo"}'), call("b", "")]),
        result("a", "rain"),
        result("b"),
        user("And tomorrow?"),
    ]
    body, notes = sent(*talk)
    assert body["messages"][1]["content"] == [
        says("I look."),
        {"type": "tool_use", "id": "a", "name": "look", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "b", "name": "look", "input": {}},
    ]
    assert body["messages"][2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": [says("rain")]},
            {"type": "tool_result", "tool_use_id": "b"},
            says("And tomorrow?"),
        ],
    }
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert (body["tool_choice"], notes) == ({"type": "none"}, {"tools": "mapped"})


@pytest.mark.parametrize("arguments", ['{"city": "Os', "[1]", '"x"', "nonsense", "[" * 9999])
def test_broken_arguments_are_wrapped(arguments: str) -> None:
    """Arguments that a model wrote wrongly do not end the conversation."""
    body, notes = sent(user("x"), assistant(tool_calls=[call("a", arguments)]), result("a", "y"))
    assert body["messages"][1]["content"][0]["input"] == {"arguments": arguments}
    assert notes["messages"] == "mapped"


def test_ids_of_other_providers() -> None:
    """An ID with characters that the API refuses is changed alike in call and result."""
    body, _ = sent(
        user("x"), assistant(tool_calls=[call("functions.f:0")]), result("functions.f:0")
    )
    assert body["messages"][1]["content"][0]["id"] == "functions_f_0"
    assert body["messages"][2]["content"][0]["tool_use_id"] == "functions_f_0"


def test_cache_marks() -> None:
    """Marks of prefixes to cache stay on their blocks; in a result they are the result's."""
    mark = b'{"type":"ephemeral","ttl":"1h"}'
    talk = [
        Message(role="system", content=[TextPart(text="s", cache_control_json=mark)]),
        user("x"),
        assistant(tool_calls=[call("a")]),
        Message(
            role="tool",
            tool_call_id="a",
            content=[TextPart(text="r", cache_control_json=mark)],
        ),
    ]
    body, _ = sent(*talk)
    assert body["system"][0]["cache_control"] == json.loads(mark)
    (block,) = body["messages"][2]["content"]
    assert block["cache_control"] == json.loads(mark)
    assert block["content"] == [says("r")]


def test_cache_marks_that_are_no_objects() -> None:
    """The error names them."""
    marked = Message(role="user", content=[TextPart(text="x")], cache_control_json=b'"yes"')
    with pytest.raises(Failure) as failed:
        sent(marked)
    assert (failed.value.reason, failed.value.param) == ("INVALID_FIELD", "cache_control")


MARK = b'{"type":"ephemeral"}'
MARKED = {"cache_control": {"type": "ephemeral"}}


def test_cache_marks_of_messages_and_calls() -> None:
    """A message's mark is on its last block, a call's on the call."""
    marked = replace(call("b"), cache_control_json=MARK)
    talk = [
        Message(role="user", content=[TextPart(text="x")], cache_control_json=MARK),
        assistant("y", tool_calls=[call("a"), marked]),
        result("a"),
        replace(result("b", "r"), cache_control_json=MARK),
        assistant("z", tool_calls=[call("c")], cache_control_json=MARK),
        result("c"),
    ]
    body, notes = sent(*talk)
    asked, called, answered, again, _ = [turn["content"] for turn in body["messages"]]

    assert asked == [says("x") | MARKED]
    assert [block.get("cache_control") for block in called] == [None, None, json.loads(MARK)]
    assert [block.get("cache_control") for block in answered] == [None, json.loads(MARK)]
    assert [block.get("cache_control") for block in again] == [None, json.loads(MARK)]
    assert "cache_control" not in notes


def test_a_mark_without_a_block_is_on_the_block_before_it() -> None:
    """Empty text makes no block. A mark at the start of a message gets a note then."""
    empty = TextPart(text=" ", cache_control_json=MARK)
    body, notes = sent(Message(role="user", content=[TextPart(text="x"), empty]))
    assert body["messages"][0]["content"] == [says("x") | MARKED]
    assert not notes

    body, notes = sent(Message(role="user", content=[empty, TextPart(text="x")]))
    assert body["messages"][0]["content"] == [says("x")]
    assert notes == {"cache_control": "dropped"}


def test_pictures() -> None:
    """Pictures go by value with their true type, or by URL; other types are refused."""
    by_value = ImagePart(base64=PNG, mime_type="image/jpeg")
    by_url = ImagePart(uri="https://example.com/a.webp")
    body, _ = sent(Message(role="user", content=[by_value, by_url]))
    assert [block["source"] for block in body["messages"][0]["content"]] == [
        {"type": "base64", "media_type": "image/png", "data": PNG},
        {"type": "url", "url": "https://example.com/a.webp"},
    ]
    bitmap = ImagePart(data=b"BM\x00\x00", mime_type="image/png")
    with pytest.raises(Failure) as refused:
        sent(Message(role="user", content=[bitmap]))
    assert refused.value.reason == "INVALID_IMAGE"


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_the_user_shows_pictures(role: Role) -> None:
    """Images in instructions or in the assistant's turn are refused, as the API has no form."""
    picture = ImagePart(base64=PNG, mime_type="image/png")
    with pytest.raises(Failure) as refused:
        sent(Message(role=role, content=[picture]), user("Hello"))
    assert (refused.value.reason, refused.value.param) == ("UNSUPPORTED_FEATURE", "messages")


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("data:text/csv;base64,YSxiCg==", "a,b\n"),
        ("data:text/markdown;charset=utf-8;base64,w6k", "é"),
        ("data:application/json;base64,e30=", "{}"),
        ("DATA:text/plain,a%20b", "a b"),
        ("data:;base64,77u/YQ==", "a"),
        ("data:application/octet-stream;base64,YQ==", "a"),
    ],
)
def test_text_files_are_text_documents(uri: str, text: str) -> None:
    """Whatever their type, without a byte order mark."""
    body, notes = sent(Message(role="user", content=[FilePart(uri=uri, filename="a.csv")]))

    (block,) = body["messages"][0]["content"]
    source = {"type": "text", "media_type": "text/plain", "data": text}
    assert block == {"type": "document", "source": source, "title": "a.csv"}
    assert not notes


def test_documents() -> None:
    """PDF documents go by value, others by URL; what has no form is refused."""
    pdf = FilePart(uri="data:application/pdf;base64,JVBERg==", filename="a.pdf")
    body, _ = sent(Message(role="user", content=[pdf]))
    assert body["messages"][0]["content"] == [
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            "title": "a.pdf",
        }
    ]
    for part in (
        FilePart(file_id="file-1"),
        FilePart(uri="data:application/zip;base64,UEsDBAA="),
        FilePart(uri="data:image/svg+xml;base64,YQ=="),
        FilePart(uri="data:text/csv;base64,/w=="),
        FilePart(uri="data:text/csv;base64,****"),
        AudioPart(base64="AA==", format="wav"),
    ):
        with pytest.raises(Failure) as refused:
            sent(Message(role="user", content=[part]))
        assert refused.value.reason == "UNSUPPORTED_FEATURE"


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
REDACTED = {"type": "redacted_thinking", "data": "ciphertext"}
USE = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
PLACES: list[Block] = [
    Text(length=2),
    Thought(text="Hm.", signature="sig"),
    Text(length=3),
    Redacted(data="ciphertext"),
    SealedCall(id="a"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AbCde", [says("Ab"), THOUGHT, says("Cde"), REDACTED, USE]),
        ("\n\nCde", [THOUGHT, says("Cde"), REDACTED, USE]),
        ("Other text", [says("Other text"), THOUGHT, REDACTED, USE]),
        ("", [THOUGHT, REDACTED, USE]),
    ],
)
def test_reasoning_comes_back_in_its_place(text: str, expected: list[object]) -> None:
    """The sealed blocks stand where they stood, even if the text was edited since."""
    state = pack("anthropic", PLACES)
    turn = assistant(text, tool_calls=[call("a")], reasoning_state=state)
    body, notes = sent(user("x"), turn, result("a", "y"))
    assert body["messages"][1]["content"] == expected
    assert notes == {"tools": "mapped"}


def test_calls_that_the_state_does_not_know_are_kept() -> None:
    """A call with another ID than the sealed one comes last; the sealed place stays empty."""
    turn = assistant(tool_calls=[call("b")], reasoning_state=pack("anthropic", PLACES))
    body, _ = sent(user("x"), turn, result("b", "y"))
    assert body["messages"][1]["content"] == [THOUGHT, REDACTED, {**USE, "id": "b"}]


def test_reasoning_of_openrouter() -> None:
    """`reasoning_details` of a Claude behind OpenRouter are continued; others are left out."""
    details = [
        {
            "type": "reasoning.text",
            "text": "Hm.",
            "signature": "sig",
            "format": "anthropic-claude-v1",
            "index": 0,
        },
        {"type": "reasoning.encrypted", "data": "ciphertext", "format": "anthropic-claude-v1"},
        {"type": "reasoning.encrypted", "data": "other", "format": "openai-responses-v1"},
    ]
    turn = assistant("Yes.", reasoning_details_json=json.dumps(details).encode())
    body, notes = sent(user("x"), turn, user("y"))
    assert body["messages"][1]["content"] == [THOUGHT, REDACTED, says("Yes.")]
    assert notes == {"messages": "dropped"}
    with pytest.raises(Failure) as refused:
        sent(user("x"), assistant("Yes.", reasoning_details_json=b"{"), user("y"))
    assert refused.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize("form", [None, "", "anthropic-claude-v1anthropic-claude-v1"])
def test_reasoning_details_whose_form_a_client_lost(form: str | None) -> None:
    """LangChain joins the form of all fragments, and OpenRouter's SDK leaves out unknown ones."""
    detail = {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": form}
    turn = assistant("Yes.", reasoning_details_json=json.dumps([detail]).encode())
    body, notes = sent(user("x"), turn, user("y"))
    assert body["messages"][1]["content"] == [THOUGHT, says("Yes.")]
    assert not notes


def test_refusals_and_plain_reasoning() -> None:
    """A refusal is what the model said; reasoning without a seal says nothing to the API."""
    turn = Message(
        role="assistant",
        content=[ReasoningPart(text="Hm.")],
        refusal="I would rather not.",
    )
    body, _ = sent(user("x"), turn, user("y"))
    assert body["messages"][1]["content"] == [says("I would rather not.")]


def test_names_are_left_out() -> None:
    """The API has no names of participants."""
    message = msgspec.structs.replace(user("x"), name="ann")
    assert sent(message)[1] == {"messages": "dropped"}


def test_names_of_tools_are_no_names_of_participants() -> None:
    """Many clients repeat them in results, where the call says as much."""
    answer = msgspec.structs.replace(result("c1", "18 degrees"), name="look")
    _, told = sent(user("x"), assistant(tool_calls=[call("c1")]), answer, strict=True)
    assert "messages" not in told


@pytest.mark.parametrize("silent", [user(""), user(" \n"), system("")])
def test_somebody_must_say_something(silent: Message) -> None:
    """The API takes no empty text, and no conversation of nothing."""
    with pytest.raises(Failure) as refused:
        sent(silent)
    assert (refused.value.reason, refused.value.param) == ("INVALID_FIELD", "messages")


def test_fields_of_other_roles_are_noted() -> None:
    """They are not sent: the API has no place for them."""
    details = b'[{"type":"reasoning.text","text":"t"}]'
    _, notes = sent(
        replace(user("x"), tool_call_id="a", refusal="no", reasoning_details_json=details),
        assistant(tool_calls=[call("a")], tool_call_id="b"),
        replace(result("a", "y"), refusal="no", reasoning_state="s"),
    )
    assert {name for name in notes if name.startswith("messages[")} == {
        "messages[0].tool_call_id",
        "messages[0].refusal",
        "messages[0].reasoning_details",
        "messages[1].tool_call_id",
        "messages[2].refusal",
        "messages[2].reasoning_state",
    }


def test_the_name_of_a_result_is_that_of_its_tool() -> None:
    """It says nothing new then, and another name has a note."""
    for name, noted in (("look", False), ("other", True)):
        talk = [user("x"), assistant(tool_calls=[call("a")]), replace(result("a", "y"), name=name)]
        _, notes = sent(*talk, tools=[Tool(name="look")])
        assert ("messages" in notes) == noted


def test_hints_about_images_are_noted() -> None:
    """How closely to look at one, and its type where the provider fetches it."""
    image = ImagePart(uri="https://a.example/b.png", mime_type="image/png", detail="low")
    _, notes = sent(Message(role="user", content=[image]))
    assert notes == {"detail": "dropped", "mime_type": "dropped"}


def test_two_marks_at_the_end_of_a_message() -> None:
    """One is sent, and if they differ there is a note."""
    part = TextPart(text="x", cache_control_json=MARK)
    for mark, noted in ((MARK, False), (b'{"type":"ephemeral","ttl":"1h"}', True)):
        message = Message(role="user", content=[part], cache_control_json=mark)
        body, notes = sent(message)
        assert body["messages"][0]["content"] == [says("x") | MARKED]
        assert bool(notes) == noted


@pytest.mark.parametrize(
    ("member", "noted"),
    [({}, False), ({"id": None}, False), ({"id": "r"}, True), ({"summary": "s"}, True)],
)
def test_members_of_reasoning_details_that_are_not_sent(
    member: dict[str, object], *, noted: bool
) -> None:
    """They have a note."""
    detail = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    detail |= {"text": "t", "signature": "s"} | member
    turn = Message(role="assistant", reasoning_details_json=json.dumps([detail]).encode())
    _, notes = sent(user("x"), turn, user("y"))
    assert ("reasoning_details" in notes) == noted


def test_marks_that_are_too_many() -> None:
    """The API takes four: those of the prompt and the latest of the messages stay, with a note."""
    talk = [Message(role="system", content=[TextPart(text="s")], cache_control_json=MARK)]
    for turn in range(4):
        talk += [replace(user(f"u{turn}"), cache_control_json=MARK), assistant(f"a{turn}")]
    talk.append(replace(user("last"), cache_control_json=MARK))
    tools = [Tool(name="f", cache_control_json=MARK)]

    for whole, kept in ((b"", ["u3", "last"]), (MARK, ["last"])):
        body, notes = sent(*talk, tools=tools, cache_control_json=whole)
        blocks = [block for turn in body["messages"] for block in turn["content"]]
        assert [block["text"] for block in blocks if "cache_control" in block] == kept
        assert "cache_control" in body["system"][0]
        assert "cache_control" in body["tools"][0]
        assert notes == {"cache_control": "dropped"}
    assert sent(*talk[-3:], tools=tools)[1] == {}
