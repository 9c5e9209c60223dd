from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from services.accounts.key_maker import FIRST_ACCOUNT, KeyMaker
from services.config import ChannelConfig, Config
from services.serving.first_key import ServedUrls, base_url, print_first_key
from services.storage.accounts import account_by_name
from services.storage.base import Database
from services.storage.pepper import Pepper
from tests.stand.clock import FakeClock

URL = "https://127.0.0.1:8080"
URLS = ServedUrls(URL)
CONSOLE_URL = "http://127.0.0.1:8081/console"
CONFIG = Config(channels=(ChannelConfig(name="c", dialect="openai", models={"v/m": "m"}),))


@pytest.fixture
def key_maker(database: Database, clock: FakeClock) -> KeyMaker:
    """Key maker of a state without keys."""
    return KeyMaker(database, Pepper(b"p" * 16), clock)


async def test_a_log_gets_no_key(
    key_maker: KeyMaker,
    database: Database,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where standard output is no terminal, no key is made; the log says how to make one."""
    with caplog.at_level(logging.INFO):
        await print_first_key(key_maker, CONFIG, URLS)

    (record,) = caplog.records
    assert record.message == "first_key.skipped"
    assert "keys create --account NAME" in vars(record)["remedy"]
    assert capsys.readouterr() == ("", "")
    assert await database.read(account_by_name, FIRST_ACCOUNT) is None


@pytest.mark.parametrize("asked", [True, False])
async def test_a_terminal_or_a_flag_gets_the_key_once(
    key_maker: KeyMaker,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    asked: bool,
) -> None:
    """The text says that the key is unlimited, and ends with the request to send."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: not asked)
    await print_first_key(key_maker, CONFIG, URLS, asked=asked)
    said = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    await print_first_key(key_maker, CONFIG, URLS)

    assert "it is unlimited" in said
    assert f"curl {URL}/v1/chat/completions" in said
    assert said.count("sk-pg-") == 2
    assert "sk-pg-" not in caplog.text
    assert not caplog.records
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (Path("var"), "  .venv/bin/pomogator keys create --account NAME\n"),
        (Path("/a b"), "  .venv/bin/pomogator keys create --account NAME --state '/a b'\n"),
    ],
)
async def test_a_later_start_says_where_it_serves(
    key_maker: KeyMaker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    state: Path,
    command: str,
) -> None:
    """And how to make a key, by the path of the program: the first key is not shown again."""
    monkeypatch.setattr(sys, "argv", [".venv/bin/pomogator", "serve"])
    for _ in range(2):
        await print_first_key(key_maker, CONFIG, URLS, asked=True, state=state)

    _, _, later = capsys.readouterr().out.partition("Serving at ")
    assert later.startswith(f"{URL}. ")
    assert later.endswith(command)
    assert "sk-pg-" not in later


async def test_the_console_is_named_before_the_request_to_send(
    key_maker: KeyMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the first start and at later ones. What follows `curl` is that command alone."""
    said = []
    for _ in range(2):
        urls = ServedUrls(URL, CONSOLE_URL)
        await print_first_key(key_maker, CONFIG, urls, asked=True)
        said.append(capsys.readouterr().out)

    first, later = said
    assert f"\n  {CONSOLE_URL}\n" in first.partition("curl ")[0]
    assert "with a key:" in first
    assert first.endswith("}'\n")
    assert later.endswith(f"\n  {CONSOLE_URL}\n")


async def test_operators_learn_where_their_token_is(
    key_maker: KeyMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a token that the state has; not of one that they have given themselves."""
    urls = ServedUrls(URL, CONSOLE_URL, Path("var/console-token"))
    await print_first_key(key_maker, CONFIG, urls, asked=True)

    assert "token in\nvar/console-token:\n\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rest", "tls", "url"),
    [
        ("127.0.0.1:8080", False, "http://127.0.0.1:8080"),
        ("0.0.0.0:8443", True, "https://127.0.0.1:8443"),
        ("[::]:8080", False, "http://[::1]:8080"),
        ("edge.example:443", True, "https://edge.example:443"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(rest: str, tls: bool, url: str) -> None:
    """With the scheme that the listener speaks."""
    assert base_url(rest, tls=tls) == url
