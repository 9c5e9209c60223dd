"""Assembly of tool calls from the fragments that providers send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.providers.openai import wire
from services.providers.openai.extras import gather
from services.providers.openai.tool_calls import ToolCalls

PARIS = '{"city":"Paris"}'
ROME = '{"city":"Rome"}'


def fragment(
    index: int | None = None, id_: str | None = None, name: str | None = None, arguments: str = ""
) -> wire.ToolCall:
    """A fragment of a call of a function."""
    return wire.ToolCall(index=index, id=id_, function=wire.Function(name, arguments))


def assembled(*pieces: wire.ToolCall) -> list[tuple[str, str, str]]:
    """ID, name and arguments of each call. Checks the form of the deltas."""
    calls = ToolCalls("seed", 2)
    deltas = [delta for piece in pieces for delta in calls.add(piece)]
    deltas += calls.rest()
    found: dict[int, list[str]] = {}
    for delta in deltas:
        assert delta.index == 2
        if delta.call_index not in found:
            assert delta.id
            assert delta.call_index == len(found)
            found[delta.call_index] = [delta.id, delta.name, delta.arguments]
        else:
            assert (delta.id, delta.name) == ("", "")
            assert delta.arguments
            found[delta.call_index][2] += delta.arguments
    assert len({call_id for call_id, _, _ in found.values()}) == len(found)
    return [(call_id, name, arguments) for call_id, name, arguments in found.values()]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(
            [
                fragment(0, "a", "f"),
                fragment(0, "b", arguments='{"city":'),
                fragment(0, "c", arguments='"Paris"}'),
            ],
            [("a", "f", PARIS)],
            id="a new ID without a name continues the call",
        ),
        pytest.param(
            [fragment(0, "a", "f", "{}"), fragment(0, "a", arguments=PARIS)],
            [("a", "f", PARIS)],
            id="arguments replace an empty object",
        ),
        pytest.param(
            [
                fragment(0, "a", "f", "{}"),
                fragment(1, "b", "g", "{}"),
                fragment(2, "c", "h"),
                fragment(2, "c", arguments=" {}"),
            ],
            [("a", "f", "{}"), ("b", "g", "{}"), ("c", "h", " {}")],
            id="an empty object may be all",
        ),
        pytest.param(
            [fragment(0, f"i{at}", "f", letter) for at, letter in enumerate(PARIS)],
            [("i0", "f", PARIS)],
            id="a new ID and the same name continue incomplete arguments",
        ),
        pytest.param(
            [fragment(0, "a", "f", PARIS), fragment(0, "b", "f", ROME), fragment(0, "c", "g")],
            [("a", "f", PARIS), ("b", "f", ROME), ("c", "g", "{}")],
            id="a new ID after complete arguments begins a call",
        ),
        pytest.param(
            [fragment(0, "a", "f", PARIS), fragment(0, "b", "f", PARIS)],
            [("a", "f", PARIS), ("b", "f", PARIS)],
            id="a new ID with equal arguments begins a call",
        ),
        pytest.param(
            [fragment(0, "a", "f"), fragment(0, "b", "g"), fragment(0, "c", "h", PARIS)],
            [("a", "f", "{}"), ("b", "g", "{}"), ("c", "h", PARIS)],
            id="a new ID and another name begin a call",
        ),
        pytest.param(
            [
                fragment(0, "a", "f", arguments=PARIS[:5]),
                fragment(1, "a", "g", arguments=ROME[:5]),
                fragment(0, "a", arguments=PARIS[5:]),
                fragment(1, "a", arguments=ROME[5:]),
            ],
            [("a", "f", PARIS), ("", "g", ROME)],
            id="the same ID at another index begins a call with an ID of its own",
        ),
        pytest.param(
            [fragment(0, "a", "f", PARIS[:3]), fragment(1, "a", arguments=PARIS[3:])],
            [("a", "f", PARIS)],
            id="the same ID at another index without a name continues the call",
        ),
        pytest.param(
            [
                fragment(0, "a", "f"),
                fragment(0, arguments=PARIS[:5]),
                fragment(0, arguments=PARIS[5:]),
                fragment(0, "a", "f", '{"city": "Paris"}'),
            ],
            [("a", "f", PARIS)],
            id="repeated arguments count once",
        ),
        pytest.param(
            [fragment(0, "a", "f", PARIS), fragment(0, arguments=PARIS)],
            [("a", "f", PARIS)],
            id="repeated arguments without a name count once",
        ),
        pytest.param(
            [fragment(0, None, "f", PARIS), fragment(0, None, "f", ROME)],
            [("", "f", PARIS), ("", "f", ROME)],
            id="a name after complete arguments begins a call",
        ),
        pytest.param(
            [fragment(None, "a", "f", PARIS), fragment(None, "a", "g", ROME)],
            [("a", "f", PARIS), ("", "g", ROME)],
            id="the same ID without indexes, with another name after complete arguments",
        ),
        pytest.param(
            [fragment(0, "a", "get_"), fragment(0, None, "weather"), fragment(0, None, "", PARIS)],
            [("a", "get_weather", PARIS)],
            id="a split name is joined",
        ),
        pytest.param(
            [fragment(0, "a", "get"), fragment(0, "a", "get_x"), fragment(0, "a", "get_x", PARIS)],
            [("a", "get_x", PARIS)],
            id="a name that is repeated from its beginning",
        ),
        pytest.param([fragment(0), wire.ToolCall()], [], id="an empty call is nothing"),
    ],
)
def test_fragments(pieces: list[wire.ToolCall], expected: list[tuple[str, str, str]]) -> None:
    """The index decides first; IDs are unique. An empty expected ID stands for one that is made."""
    found = assembled(*pieces)

    assert [call[1:] for call in found] == [call[1:] for call in expected]
    assert all(
        got[0] == want[0] or (not want[0] and got[0].startswith("call_"))
        for got, want in zip(found, expected, strict=True)
    )


def test_each_call_of_a_whole_message_is_a_call() -> None:
    """Equal IDs, indexes and names do not merge the calls of a whole message."""
    pieces = [fragment(0, "a", "f", PARIS), fragment(0, "a", "f", PARIS), fragment(name="f")]

    calls = ToolCalls("seed")
    for one in pieces:
        calls.add_whole(one)

    found = calls.whole()
    assert [(call.name, call.arguments) for call in found] == [("f", PARIS)] * 2 + [("f", "{}")]
    assert found[0].id == "a"
    assert len({call.id for call in found}) == len(found)


_ARGUMENTS = st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3).map(json.dumps)
_NAMES = st.from_regex(r"[a-z]_[0-9]", fullmatch=True)


@given(st.data())
def test_slices(data: st.DataObject) -> None:
    """Calls at indexes of their own come out as they are, however names and arguments are cut.

    Arguments of several calls are interleaved, and IDs arrive once, always, never, or differ.
    """
    made = data.draw(st.lists(st.tuples(_NAMES, _ARGUMENTS), min_size=1, max_size=3))
    style = data.draw(st.sampled_from(("once", "always", "never", "new")))

    def named(index: int, at: int) -> str:
        """ID in the fragment number `at` of a call."""
        if style == "never" or (style == "once" and at):
            return ""
        return f"id{index}.{at if style == 'new' else 0}"

    waiting = list(range(len(made)))
    slices: list[list[str]] = []
    pieces: list[wire.ToolCall] = []
    while waiting or any(slices):
        if waiting and (not any(slices) or data.draw(st.booleans())):
            index = waiting.pop(0)
            name, arguments = made[index]
            slices.append(cut(data, arguments))
            names = [name] if style == "new" else cut(data, name)
            pieces += [fragment(index, named(index, at), one) for at, one in enumerate(names)]
        else:
            index = data.draw(st.sampled_from([at for at, rest in enumerate(slices) if rest]))
            pieces.append(fragment(index, named(index, len(pieces)), None, slices[index].pop(0)))

    found = assembled(*pieces)

    assert [call[1:] for call in found] == made


def cut(data: st.DataObject, text: str) -> list[str]:
    """The text in slices."""
    at = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=4)))
    return [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([{}, {"name": "", "arguments": ""}, {"name": None}], {}),
        (
            [{"name": "get_"}, {"name": "x", "arguments": ""}, {"name": "", "arguments": "{}"}],
            {"function_call": {"name": "get_x", "arguments": "{}"}},
        ),
    ],
)
def test_function_calls(pieces: list[dict[str, Any]], expected: dict[str, object]) -> None:
    """An empty `function_call` is nothing, and empty strings replace nothing."""
    extra: dict[str, object] = {}
    for piece in pieces:
        gather(wire.Message(function_call=wire.Function(**piece)), None, extra)

    assert extra == expected
