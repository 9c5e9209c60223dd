"""Unknown members below the top level: each arrives at the provider, or is noted, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.conversation import (
    Message,
    TextPart,
)
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from services.providers.translate.unknown_members import (
    NOTES_MAX,
    drop_members,
    unknown_members,
    unknown_paths,
)
from tests.services.providers.planted_specs import AT, MODELS, encode, members, planted
from tests.services.providers.targets import target_of

NAMES = st.sampled_from(
    ["uuid", "prefix", "partial", "cache_control", "schema", "model", "content", "name", "type"]
) | st.text(min_size=1, max_size=6)
VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "google", "$ref"]), inner, min_size=1, max_size=2)
    ),
    max_leaves=4,
)


@given(
    path=st.sampled_from(AT),
    name=NAMES,
    value=VALUES,
    pass_through=st.sampled_from(["harmless", True, False, ("prefix", "a")]),
    dialect=st.sampled_from(sorted(DIALECTS)).filter(MODELS.__contains__),
)
def test_each_member_arrives_or_is_noted_or_refused(
    path: str, name: str, value: object, pass_through: Any, dialect: str
) -> None:
    """Wherever it is planted, in every dialect, whatever the channel passes."""
    if dialect == "anthropic" and path == "messages[3].content[2]":
        return  # Refused with its part.
    if dialect == "anthropic" and (path, name) == ("thinking", "type"):
        return  # A mode that the API does not have is refused.
    if dialect == "anthropic" and (path, name) == ("response_format", "schema"):
        return  # Sent in the provider's form of a schema.
    plain, noted = encode(planted({}), dialect, pass_through)
    spec = planted({path: {name: value}})
    body, notes = encode(spec, dialect, pass_through)

    new = notes.keys() - noted.keys()
    if new:
        shown = path.replace("content[3]", "content[2]") if dialect == "anthropic" else path
        assert all(each.startswith(f"{shown}.") for each in new)
        with pytest.raises(Failure) as refused:
            encode(spec, dialect, pass_through, strict=True)
        assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE
    else:
        assert (name, json.dumps(value)) in members(body)
        assert body != plain


def test_what_says_nothing_needs_no_note() -> None:
    """SDKs send empty lists of annotations with each earlier answer."""
    extras: dict[str, Any] = {"messages[1]": {"annotations": [], "x": None, "audio": None}}
    for dialect in MODELS:
        assert encode(planted(extras), dialect) == encode(planted({}), dialect)
    assert unknown_paths(planted(extras)) == []


def test_empty_members_need_a_note() -> None:
    """An empty object may switch something on."""
    extras: dict[str, Any] = {"messages[1]": {"x": [], "y": {}}, "tools[1]": {"z": {}}}
    paths = ["tools[1].z", "messages[1].x", "messages[1].y"]
    assert unknown_paths(planted(extras)) == paths


def test_paths() -> None:
    """Each path leads to a member; a name that no note may hold is not shown."""
    extras = {
        "tools[1]": {"a": 1, "b c": 2},
        "messages[1].tool_calls[0]": {"cache_control": {"t": 1}},
    }
    spec = planted(extras)

    assert unknown_paths(spec, known={"a"}) == [
        "tools[1].extra_json",
        "messages[1].tool_calls[0].cache_control",
    ]
    assert [found.place for found in unknown_members(spec)] == ["tool", "tool_call"]


def test_notes_are_bounded() -> None:
    """Many members have a note together."""
    notes = Notes()
    drop_members([f"messages[{index}].x" for index in range(NOTES_MAX + 100)], notes)

    assert len(notes.all) == NOTES_MAX + 1
    assert notes.all[-1].param == "extra_json"


@pytest.mark.parametrize("extra_json", [b"[1]", b"{", b'{"a":1}]', b'{"a":"\xff"}', b"[" * 9999])
def test_members_are_an_object(extra_json: bytes) -> None:
    """Other JSON is an invalid field, in every dialect."""
    spec = ChatCompletionSpec(
        model="m",
        messages=[Message(role="user", content=[TextPart(text="a", extra_json=extra_json)])],
    )
    for dialect, model in MODELS.items():
        with pytest.raises(Failure) as refused:
            DIALECTS[dialect].encode(spec, target_of(model, dialect), Notes())
        assert (refused.value.param, refused.value.reason) == ("messages", "INVALID_FIELD")
