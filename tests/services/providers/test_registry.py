"""The names of the dialects."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.config import ConfigError, load
from services.providers.registry import DIALECTS

CHANNEL = """
[[channels]]
name = "a"
dialect = "{dialect}"
base_url = "https://a.test/v1"
[channels.models]
"m" = "m"
"""


def test_the_shipped_channels_name_registered_dialects() -> None:
    """Every dialect has a shipped channel; OpenAI's has two, of which requests choose one."""
    env = {f"{name}_API_KEY": "k" for name in ("ANTHROPIC", "OPENAI", "OPENROUTER")}

    channels = load(None, env, dialects=DIALECTS).channels

    assert {channel.dialect for channel in channels} == set(DIALECTS) - {"openai-responses"}


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_name_can_be_configured(name: str, tmp_path: Path) -> None:
    """A name in the registry is a value of `dialect` in `[[channels]]`."""
    path = tmp_path / "pomogator.toml"
    path.write_text(CHANNEL.format(dialect=name))

    (channel,) = load(path, {}, dialects=DIALECTS).channels

    assert channel.dialect == name


def test_other_names_are_refused(tmp_path: Path) -> None:
    """The message lists the names in the registry."""
    path = tmp_path / "pomogator.toml"
    path.write_text(CHANNEL.format(dialect="oepnai"))

    with pytest.raises(
        ConfigError, match="'oepnai' is not one of anthropic, openai, openai-responses"
    ):
        load(path, {}, dialects=DIALECTS)


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
