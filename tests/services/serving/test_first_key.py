from __future__ import annotations

import logging
import sys

import pytest

from services.accounts.key_maker import FIRST_ACCOUNT, KeyMaker
from services.config import ChannelConfig, Config
from services.serving.first_key import print_first_key
from services.storage.accounts import account_by_name
from services.storage.base import Database
from services.storage.pepper import Pepper
from tests.stand.clock import FakeClock

REST = "127.0.0.1:8080"
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
        await print_first_key(key_maker, CONFIG, REST)

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
    await print_first_key(key_maker, CONFIG, REST, asked=asked)
    said = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    await print_first_key(key_maker, CONFIG, REST)

    assert "it is unlimited" in said
    assert f"curl http://{REST}/v1/chat/completions" in said
    assert said.count("sk-pg-") == 2
    assert "sk-pg-" not in caplog.text
    assert not caplog.records
    assert capsys.readouterr().out == ""
