"""Order of messages, by the provider's rule."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.capabilities import Capabilities, LateInstructions
from services.domain.conversation import Message, ReasoningPart, TextPart
from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate.history import instructions, turns
from services.providers.translate.history.merging import merged
from services.providers.translate.history.turns import ACKNOWLEDGEMENT, OPENING
from tests.services.providers.anthropic.specs import assistant, call, result, system, user
from tests.services.providers.targets import told

TALK = {"s": system, "u": user, "a": assistant}
NAMES = {"system": "s", "developer": "s", "user": "u", "assistant": "a", "tool": "t"}


def talk(roles: str) -> list[Message]:
    """Messages of these roles, with their index as text: a call is `c`, its result `t`."""
    found = []
    for index, letter in enumerate(roles):
        if letter == "c":
            found.append(assistant(tool_calls=[call("c")]))
        elif letter == "t":
            found.append(result("c", str(index)))
        else:
            found.append(TALK[letter](str(index)))
    return found


def shown(messages: list[Message]) -> str:
    """Roles and texts, such as `s0 u1`. Marked instructions are in angle brackets."""
    texts = [
        "+".join(part.text for part in message.content if isinstance(part, TextPart))
        for message in messages
    ]
    plain = [text.replace("<system>\n", "<").replace("\n</system>", ">") for text in texts]
    return " ".join(
        NAMES[message.role] + text.replace("\n\n", "|")
        for message, text in zip(messages, plain, strict=True)
    )


@pytest.mark.parametrize(
    ("rule", "roles", "expected"),
    [
        ("any", "suasu", "s0 u1 a2 s3 u4"),
        ("none", "suas", "s0 u1 a2 u<3>"),
        ("none", "ssu", "s0 s1 u2"),
        ("none", "sussu", "s0 u1 u<2> u<3> u4"),
        ("single", "ssu", "s0|1 u2"),
        ("single", "ssusu", "s0|1 u2 u<3> u4"),
        ("after_input", "susa", "s0 u1 s2 a3"),
        ("after_input", "uasu", "u0 a1 u<2> u3"),
        ("after_input", "uct" + "s", "u0 a t2 s3"),
        ("after_user", "uss", "u0 s1 s2"),
        ("after_user", "ucts", "u0 a t2 u<3>"),
        ("none", "ucst", "u0 a t3 u<2>"),
        ("none", "uctsta", "u0 a t2 t4 u<3> a5"),
    ],
)
def test_late_instructions(rule: LateInstructions, roles: str, expected: str) -> None:
    """They keep their place, in the user's name where the provider has none for them."""
    notes = Notes(strict=True)
    asked = talk(roles)
    found = instructions.placed(asked, rule, notes)
    assert shown(found) == expected
    assert told(notes) == ({"messages": "mapped"} if "<" in expected or "|" in expected else {})


@pytest.mark.parametrize(
    ("turns_rule", "roles", "expected"),
    [
        ("user_first", "sau", f"s0 u{OPENING} a1 u2"),
        ("user_first", "ua", "u0 a1"),
        ("user_first", "ss", "u0 u1"),
        ("user_first", "uuaa", "u0 u1 a2 a3"),
        ("alternate", "suuaau", "s0 u1|2 a3|4 u5"),
        ("alternate", "auu", f"u{OPENING} a0 u1|2"),
        ("alternate", "ss", "u0|1"),
        ("any", "auu", "a0 u1 u2"),
    ],
)
def test_turns(turns_rule: str, roles: str, expected: str) -> None:
    """The user begins, and takes turns with the assistant, where the provider wants it."""
    notes = Notes(strict=True)
    able = msgspec.convert({"turns": turns_rule}, Capabilities)
    assert shown(turns.ordered(talk(roles), able, notes)) == expected
    assert told(notes) == ({} if expected == shown(talk(roles)) else {"messages": "mapped"})


def test_blank_messages_begin_no_conversation() -> None:
    """A user's message without content is not sent by some dialects."""
    able = Capabilities(turns="user_first")
    found = turns.ordered([user(" "), assistant("a"), user("b")], able, Notes())
    assert shown(found) == f"u{OPENING} u  aa ub"
    silent = [user(""), user()]
    assert turns.ordered(silent, able, Notes()) is silent


def test_the_assistant_speaks_between_tool_and_user() -> None:
    """Only where the provider wants it."""
    asked = talk("uctuctta")
    notes = Notes(strict=True)
    found = turns.ordered(asked, Capabilities(user_after_tool=False), notes)
    assert shown(found) == f"u0 a t2 a{ACKNOWLEDGEMENT} u3 a t5 t6 a7"
    assert told(notes) == {"messages": "mapped"}
    assert turns.ordered(asked, Capabilities(), Notes()) is asked


def test_merging_keeps_everything() -> None:
    """Parts with marks stay apart, calls and refusals are joined."""
    mark = b'{"type":"ephemeral"}'
    one = Message(role="assistant", content=[TextPart(text="a", cache_control_json=mark)])
    two = Message(
        role="assistant",
        content=[ReasoningPart(text="r"), TextPart(text="b")],
        tool_calls=[call("c")],
        refusal="no",
        reasoning_state="s",
        extra_json=b'{"x":1}',
    )
    found = merged([one, two], Notes(strict=True))
    assert found == msgspec.structs.replace(two, content=[*one.content, *two.content])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"name": "ann"}, {"name": "bob"}),
        ({"extra_json": b'{"x":1}'}, {"extra_json": b'{"y":1}'}),
        ({"reasoning_state": "s"}, {"reasoning_state": "t"}),
    ],
)
def test_merging_says_what_it_loses(one: dict[str, str], two: dict[str, str]) -> None:
    """There is a note, or a strict request is refused."""
    both = [msgspec.structs.replace(assistant("x"), **fields) for fields in (one, two)]
    notes = Notes()
    merged(both, notes)
    assert json.dumps([note.action for note in notes.all]) == '["mapped", "dropped"]'
    with pytest.raises(Failure):
        merged(both, Notes(strict=True))


def test_many_messages_are_one() -> None:
    """Texts of plain parts that meet are one text; parts of one message stay apart."""
    marked = msgspec.structs.replace(user("c"), cache_control_json=b"{}")
    found = merged([user("a"), user("b", "B"), marked, user(), user("d"), user("e")], Notes())

    assert [(part.text, part.cache_control_json) for part in found.content] == [  # type: ignore[union-attr]
        ("a\n\nb", b""),
        ("B\n\nc", b"{}"),
        ("d\n\ne", b""),
    ]
