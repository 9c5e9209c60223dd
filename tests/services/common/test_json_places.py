"""Places in JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from services.common.json_places import members, replace_string, with_members

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=5)
FORMS: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {"separators": (",", ":"), "ensure_ascii": False},
    {},
    {"indent": 2},
]


@pytest.mark.parametrize("form", FORMS)
@given(value=OBJECTS)
def test_members_are_as_the_standard_reader_has_them(
    form: dict[str, Any], value: dict[str, Any]
) -> None:
    """In any spacing, with the text of each value."""
    read = members(json.dumps(value, **form).encode())
    assert {name: json.loads(bytes(raw)) for name, raw in read.items()} == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":"x","b":[{"c":1}],"a":""}',
        b'{"a" : 1, "b":{"a":1} ,"a":2}',
        b"[]",
        b'"a"',
        b'{"a":1',
        b'{"a":1}}',
        b"\xff",
        b"[" * 5_000,
    ],
)
def test_text_that_readers_may_take_in_two_ways_is_refused(text: bytes) -> None:
    """A name twice at the top, and what is no object."""
    with pytest.raises(ValueError):  # noqa: PT011 - there are many
        members(text)


@pytest.mark.parametrize("form", FORMS)
@given(value=OBJECTS.filter(bool), other=VALUES, data=st.data())
def test_a_name_that_is_there_twice_is_found(
    form: dict[str, Any], value: dict[str, Any], other: Any, data: st.DataObject
) -> None:
    """In any spacing, whatever its values are."""
    name = data.draw(st.sampled_from(list(value)))
    once, again = json.dumps(value, **form), json.dumps({name: other}, **form)
    with pytest.raises(ValueError, match="twice"):
        members(f"{once[:-1]},{again[1:]}".encode())


@pytest.mark.parametrize("form", FORMS)
@given(value=OBJECTS.filter(bool), new=OBJECTS, data=st.data())
def test_members_are_replaced_where_they_are(
    form: dict[str, Any], value: dict[str, Any], new: dict[str, Any], data: st.DataObject
) -> None:
    """Members that were not there come first; all other bytes stay."""
    name = data.draw(st.sampled_from(list(value)))
    text = data.draw(st.sampled_from([b"", b" \n"])) + json.dumps(value, **form).encode()
    wanted = {**new, name: None}
    encoded = {each: Raw(json.dumps(of, **form).encode()) for each, of in wanted.items()}
    replaced = with_members(text, members(text), encoded)
    assert json.loads(replaced) == {**value, **wanted}
    assert with_members(replaced, members(replaced), members(text)).endswith(
        text[text.index(b"{") + 1 :]
    )


@pytest.mark.parametrize("form", FORMS)
@given(value=OBJECTS, old=st.text(), new=st.text())
def test_a_string_is_replaced_where_it_is(
    form: dict[str, Any], value: dict[str, Any], old: str, new: str
) -> None:
    """All bytes around it stay."""
    whole = {**value, "of": {**value, "model": old, "z": [{"model": old}]}, "model": old}
    text = json.dumps(whole, **form).encode()
    replaced = replace_string(text, ("of", "model"), new)
    assert json.loads(replaced) == {**whole, "of": {**whole["of"], "model": new}}
    assert replace_string(replaced, ("of", "model"), "") == replace_string(
        text, ("of", "model"), ""
    )
    outer = replace_string(text, ("model",), new)
    assert json.loads(outer) == {**whole, "model": new}
    assert replace_string(outer, ("model",), old) == replace_string(text, ("model",), old)


@pytest.mark.parametrize("before", [b"", b'"id":"\\"model\\":",', b'"a":[{"model":"z"}],"b":null,'])
def test_a_string_is_replaced_behind_any_member(before: bytes) -> None:
    """With those before it that are strings, lists, objects or none of these."""
    text = b'{%b"model":"%b","z":"model"}'
    assert replace_string(text % (before, b"x"), ("model",), "y") == text % (before, b"y")


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":5}',
        b'{"of":"model"}',
        b'{"of":{"model":"x"}}',
        b'{"of":[{"model":"x"}]}',
        b"[]",
        b"5",
    ],
)
def test_text_without_the_string_stays(text: bytes) -> None:
    """Other types of values, and strings of that name elsewhere."""
    assert replace_string(text, ("model",), "y") == text
