"""The names of the dialects."""

from __future__ import annotations

import pytest

from services.config import DIALECTS as CONFIGURABLE
from services.providers.registry import DIALECTS


def test_names_are_those_of_the_configuration() -> None:
    """Every dialect can be configured, and every configurable one exists."""
    assert frozenset(DIALECTS) == CONFIGURABLE


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_keys_travel_in_headers(name: str) -> None:
    """A channel's key is in a header of lower-case name, and nowhere without a key."""
    headers = DIALECTS[name].auth_headers("the-key")

    assert any("the-key" in value for value in headers.values())
    assert all(header == header.lower() for header in headers)


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("status", [300, 302, 400, 401, 404, 429, 451, 500, 503, 529, 599])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b"null", b"\xff", b'{"error":[]}'])
def test_every_refusal_is_an_error(name: str, status: int, body: bytes) -> None:
    """Every error response gets a reason and a message that is not empty, whatever its body."""
    error = DIALECTS[name].error(status, {}, body)

    assert error.status == status
    assert error.message
