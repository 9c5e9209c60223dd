"""Messages about values of a wrong type."""

from __future__ import annotations

import tomllib

import msgspec
import pytest

from services.config import Config
from services.config.type_errors import located

ROW = "[[channels]]\nname = 'a'\ndialect = 'openai'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[billing]\nunpriced = 'fre'", "billing.unpriced: 'fre' is not one of 'free', 'refuse'"),
        (
            f"{ROW}responses = 'yes'",
            "channels[0] (a).responses: 'yes' is not one of 'auto', 'always', 'never'",
        ),
        (
            f"{ROW}pass_through = 'all'",
            "channels[0] (a).pass_through: 'all' is not one of 'harmless', true, false, an array",
        ),
        ("[[channels]]\nname = 'a'", "channels[0] (a).dialect: is missing"),
        ("[[channels]]\ndialect = 'a'", "channels[0].name: is missing"),
        ("[limits]\nrpm = 5", "limits: expected rows, each of which begins with [[limits]]"),
        (f"{ROW}models = ['m']", "channels[0] (a).models: expected table, got array"),
        (f"{ROW}weight = 'x'", "channels[0] (a).weight: expected float, got str"),
        ("bounds = 3", "bounds: expected table, got int"),
    ],
)
def test_a_message_says_what_is_allowed(text: str, said: str) -> None:
    """In TOML's words, with the row's name."""
    tables = tomllib.loads(text)

    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(tables, Config)

    assert located(str(refused.value), tables) == said
