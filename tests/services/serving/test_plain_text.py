"""Unencrypted links to other machines."""

from __future__ import annotations

import pytest

from services.config import ChannelConfig, Config, Secret, StateConfig
from services.serving.plain_text import unencrypted


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("", False),
        ("postgresql://u:p@127.0.0.1:5432/db", False),
        ("postgresql://u:p@localhost/db", False),
        ("postgresql:///db?host=/run/postgresql", False),
        ("postgresql://u:p@db.svc/db", True),
        ("postgresql://u:p@db.svc/db?sslmode=prefer", True),
        ("postgresql://u:p@db.svc/db?sslmode=disable", True),
        ("postgresql://u:p@db.svc/db?sslmode=require", False),
        ("postgresql://u:p@db.svc/db?sslmode=verify-full", False),
        ("postgresql://u:p@127.0.0.1:1,db.svc:2/db", True),
        ("postgresql://u:p@/db?host=db.svc", True),
        ("postgresql://u:p@[fd00::1]:5432/db", True),
        ("postgresql://u:p@[::1]:5432/db", False),
        ("postgresql://u:p@localhost:1,[::1]:2,127.0.0.1/db", False),
        ("postgresql://u:p@localhost,[fd00::1]:2/db", True),
        ("postgresql://u:p@db.svc/db?application_name=a", True),
    ],
)
def test_databases(url: str, plain: bool) -> None:
    """A mode that may fall back to plain text counts as plain text, but only to other machines."""
    links = [link for link, _ in unencrypted(Config(state=StateConfig(database_url=Secret(url))))]

    assert links == ["state.database_url"] * plain


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("", False),
        ("redis://127.0.0.1:6379", False),
        ("unix:///run/redis.sock", False),
        ("redis://:secret@redis.svc:6379/0", True),
        ("rediss://:secret@redis.svc:6379/0", False),
    ],
)
def test_counters(url: str, plain: bool) -> None:
    """Redis is plain text unless the URL is `rediss://`."""
    links = [link for link, _ in unencrypted(Config(state=StateConfig(redis_url=Secret(url))))]

    assert links == ["state.redis_url"] * plain


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://vllm.svc:8000/v1", True),
        ("https://api.example/v1", False),
    ],
)
def test_providers(url: str, plain: bool) -> None:
    """A provider's key is readable on `http://`."""
    channel = ChannelConfig(name="a", dialect="openai", base_url=url, models={"m": "m"})
    links = [link for link, _ in unencrypted(Config(channels=(channel,)))]

    assert links == ["channels (a).base_url"] * plain
