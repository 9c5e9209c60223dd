"""Messages of requests as turns and blocks of the API."""

from __future__ import annotations

import base64

import msgspec
import pytest
from msgspec.structs import replace

from services.domain.conversation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Role,
    TextPart,
)
from services.domain.spec import Tool
from services.errors import Failure
from tests.services.providers.anthropic.specs import (
    assistant,
    call,
    result,
    says,
    sent,
    system,
    user,
)
from tests.services.providers.targets import target_of

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()


def test_instructions_move_to_system() -> None:
    """System and developer messages at the beginning become `system`, part by part."""
    developer = Message(role="developer", content=[TextPart(text="Be brief.")])
    body, notes = sent(system("Be kind.", "Be true."), developer, user("Hi"))
    assert body["system"] == [says("Be kind."), says("Be true."), says("Be brief.")]
    assert len(body["messages"]) == 1
    assert notes == {}


def test_later_instructions_are_marked_in_the_users_turn() -> None:
    """They are messages of their own where the model accepts that."""
    talk = [user("Hi"), system("Now in French."), user("Bye")]
    body, notes = sent(*talk)
    (turn,) = body["messages"]
    marked = says("<system>\nNow in French.\n</system>")
    assert turn["content"] == [says("Hi"), marked, says("Bye")]
    assert notes == {"messages": "mapped"}
    body, notes = sent(*talk, target=target_of("claude-opus-4-8"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "system", "user"]
    assert notes == {}


def test_instructions_between_calls_and_results_come_after_them() -> None:
    """The API refuses anything in between."""
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
    """The API refuses text between them, which a user may send while a tool runs."""
    calls = assistant(tool_calls=[call("a"), call("b")])
    talk = [user("Hi"), calls, result("b", "2"), user("Still there?"), result("a", "1"), user("Go")]
    body, _ = sent(*talk)
    content = body["messages"][2]["content"]
    assert [block.get("tool_use_id") for block in content] == ["b", "a", None, None]
    assert content[2:] == [says("Still there?"), says("Go")]


def test_messages_of_one_role_in_a_row_are_one_turn() -> None:
    """Blocks are appended, and empty texts left out."""
    talk = [user("a"), user("b", " "), assistant("c"), assistant("", "d"), user("e")]
    body, notes = sent(*talk)
    assert body["messages"] == [
        {"role": "user", "content": [says("a"), says("b")]},
        {"role": "assistant", "content": [says("c"), says("d")]},
        {"role": "user", "content": [says("e")]},
    ]
    assert notes == {}


def test_a_conversation_begins_with_a_users_turn() -> None:
    """One is added where the assistant begins, or where there are only instructions."""
    body, notes = sent(assistant("Hello!"), user("Hi"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert notes == {"messages": "mapped"}
    body, notes = sent(system("Tell a joke."))
    assert body["messages"] == [{"role": "user", "content": [says("Tell a joke.")]}]
    assert ("system" in body, notes) == (False, {"messages": "mapped"})


def test_calls_and_results_are_blocks_of_their_turns() -> None:
    """Results come first in the user's next turn."""
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
    """The conversation goes on, although a model wrote arguments that are no JSON object."""
    body, notes = sent(user("x"), assistant(tool_calls=[call("a", arguments)]), result("a", "y"))
    assert body["messages"][1]["content"][0]["input"] == {"arguments": arguments}
    assert notes["messages"] == "mapped"


def test_ids_that_the_api_refuses_are_changed() -> None:
    """In the call and in its result."""
    body, _ = sent(
        user("x"), assistant(tool_calls=[call("functions.f:0")]), result("functions.f:0")
    )
    assert body["messages"][1]["content"][0]["id"] == "functions_f_0"
    assert body["messages"][2]["content"][0]["tool_use_id"] == "functions_f_0"


def test_images_are_sent_by_value_or_by_url() -> None:
    """By value with the type that their bytes show. Other types are refused."""
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
def test_images_outside_the_users_turns_are_refused(role: Role) -> None:
    """The API has no form for them."""
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


def test_pdf_documents_are_sent_by_value_and_others_by_url() -> None:
    """Documents without either form are refused."""
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


def test_names_of_participants_are_left_out() -> None:
    """The API has no names of participants."""
    message = msgspec.structs.replace(user("x"), name="ann")
    assert sent(message)[1] == {"messages": "dropped"}


def test_names_of_tools_are_no_names_of_participants() -> None:
    """Many clients repeat them in results. They have no note, since the call has the name."""
    answer = msgspec.structs.replace(result("c1", "18 degrees"), name="look")
    _, told = sent(user("x"), assistant(tool_calls=[call("c1")]), answer, strict=True)
    assert "messages" not in told


@pytest.mark.parametrize("silent", [user(""), user(" \n"), system("")])
def test_a_conversation_of_empty_messages_is_refused(silent: Message) -> None:
    """The API takes no empty text, and no conversation without one."""
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
    """Another name has a note."""
    for name, noted in (("look", False), ("other", True)):
        talk = [user("x"), assistant(tool_calls=[call("a")]), replace(result("a", "y"), name=name)]
        _, notes = sent(*talk, tools=[Tool(name="look")])
        assert ("messages" in notes) == noted


def test_hints_about_images_are_noted() -> None:
    """Their level of detail, and their type where the provider fetches them."""
    image = ImagePart(uri="https://a.example/b.png", mime_type="image/png", detail="low")
    _, notes = sent(Message(role="user", content=[image]))
    assert notes == {"detail": "dropped", "mime_type": "dropped"}
