"""Arguments of tool calls in one form."""

from __future__ import annotations

from services.completions.canonical_arguments import VALUES_MAX, canonical


def test_the_form_does_not_matter() -> None:
    """White space, the order of members and the form of integers."""
    assert canonical('{"b": 1.0, "a": [2]}') == canonical(' {"a":[2.0],"b":1}')


def test_arguments_of_many_values_are_not_read() -> None:
    """A text of 30 MiB may have ten million of them."""
    many = '{"a": [' + ", ".join(["[]"] * VALUES_MAX) + "]}"

    assert canonical(many) == many.encode()
