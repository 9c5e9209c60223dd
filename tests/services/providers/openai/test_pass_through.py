"""Fields of requests that are unknown to the contract."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.domain.spec import (
    ChatCompletionSpec,
    Tool,
)
from services.errors import Failure
from services.providers.openai.pass_through import NAMED_ONLY, NEVER
from services.providers.openai.request import UNSTREAMED
from tests.services.providers.openai.requests import encode, message, spec, target


@pytest.mark.parametrize(
    "wanted",
    [
        {"tools": [Tool(name="f", parameters_json=b'{},"model":"x"')]},
        {"tools": [Tool(name="f", parameters_json=b"{")]},
        {"extra_json": b"[1]"},
        {"extra_json": b'{"a":1}]'},
        {"extra_json": b'{"a":"\xff"}'},
        {"messages": [message("a", extra_json=b'"x"')]},
    ],
)
def test_json_that_is_copied_into_the_body_is_one_value(wanted: dict[str, Any]) -> None:
    """Anything else could close the object around it, and is refused."""
    with pytest.raises(Failure) as refused:
        encode(spec(**wanted))
    assert refused.value.reason == ErrorReason.INVALID_FIELD


@pytest.mark.parametrize(
    ("pass_through", "passed"),
    [
        (True, {"a", "b"}),
        ("harmless", set()),
        (False, set()),
        (("a",), {"a"}),
        (("a", "model", "seed"), {"a"}),
        (("harmless", "a"), {"a"}),
    ],
)
def test_unknown_fields_follow_the_rule_of_the_channel(pass_through: Any, passed: set[str]) -> None:
    """Each field that is left out has a note."""
    extra = b'{"a":{"x":[1.50]},"b":2,"c":null,"model":"other"}'
    body, notes = encode(spec(extra_json=extra), target(pass_through=pass_through))

    assert body.keys() & {"a", "b", "c"} == passed
    assert body["model"] == "upstream-name"
    assert notes.keys() == {"a", "b", "model"} - passed


def spellings(name: str) -> set[str]:
    """Return spellings of a field's name that some server takes for the same."""
    words = [word for word in name.split("_") if word]
    camel = words[0] + "".join(word.title() for word in words[1:]) if words else name
    return {name, name.upper(), name.title(), name.replace("_", "-"), camel, camel.title()}


@pytest.mark.parametrize("name", sorted(NEVER))
def test_fields_of_the_list_are_never_passed(name: str) -> None:
    """They change model, price, storage or route. Other spellings of them are not passed either."""
    plain, _ = encode(spec())
    for spelling in spellings(name):
        for pass_through in ("harmless", True, (name, spelling)):
            if spelling in NAMED_ONLY and isinstance(pass_through, tuple):
                continue
            extra = json.dumps({spelling: "hostile"}).encode()
            body, notes = encode(spec(extra_json=extra), target(pass_through=pass_through))
            assert body == plain
            assert notes


@given(
    st.dictionaries(
        st.sampled_from([*sorted(NEVER), *ChatCompletionSpec.__struct_fields__])
        | st.text(max_size=8),
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
        max_size=6,
    )
)
def test_hostile_fields_change_nothing(extra: dict[str, object]) -> None:
    """Whatever fields a caller adds, those of the encoder keep their values."""
    assume(UNSTREAMED.isdisjoint(extra))
    wanted = spec(max_tokens=50, temperature=0.5)
    plain, _ = encode(wanted)
    wanted = msgspec.structs.replace(wanted, extra_json=json.dumps(extra).encode())
    body, _ = encode(wanted)

    assert plain.items() <= body.items()
    body, _ = encode(wanted, target(pass_through=True))
    assert plain.items() <= body.items()
    added = body.keys() - plain.keys()
    assert all(extra[name] == body[name] for name in added)
    assert not {name.casefold() for name in added} & NEVER


def test_storage_and_searches_are_passed_where_the_channel_names_them() -> None:
    """Beside the table of harmless fields."""
    extra = {"store": True, "web_search_options": {"x": 1}, "stop_token_ids": [1], "secret": 2}
    wanted = spec(extra_json=json.dumps(extra).encode())
    for pass_through in ("harmless", True, ("harmless",)):
        body, notes = encode(wanted, target(pass_through=pass_through))
        assert body["stop_token_ids"] == [1]
        assert {"store", "web_search_options"} <= notes.keys() - body.keys()

    body, notes = encode(wanted, target(pass_through=("harmless", "store", "web_search_options")))
    assert (body["store"], body["web_search_options"]) == (True, {"x": 1})
    assert body["stop_token_ids"] == [1]
    assert notes == {"secret": "dropped"}


def test_tier_and_labels_are_passed_where_the_channel_names_them() -> None:
    """The tier changes the price, and labels are stored."""
    wanted = spec(service_tier="flex", metadata={"a": "b"})
    held, notes = encode(wanted)
    body, silent = encode(wanted, target(pass_through=("service_tier", "metadata")))

    assert not {"service_tier", "metadata"} & held.keys()
    assert set(notes) == {"service_tier", "metadata"}
    assert (body["service_tier"], body["metadata"]) == ("flex", {"a": "b"})
    assert not silent


@pytest.mark.parametrize(
    ("pass_through", "sent"),
    [
        ("harmless", {"include_obfuscation": False}),
        (True, {"include_obfuscation": False, "x": 1}),
        (False, {}),
        (("x",), {"x": 1}),
    ],
)
def test_unknown_members_of_stream_options(pass_through: Any, sent: dict[str, Any]) -> None:
    """They follow the rule of other members. `include_usage` is not the caller's."""
    extra = b'{"stream_options":{"include_obfuscation":false,"x":1,"include_usage":false}}'
    body, notes = encode(spec(extra_json=extra), target(pass_through=pass_through))
    assert body["stream_options"] == sent | {"include_usage": True}
    assert notes.keys() == {
        f"stream_options.{name}"
        for name in {"include_obfuscation", "x", "include_usage"} - sent.keys()
    }
