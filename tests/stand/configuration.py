"""Configuration files of the gateways under test."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MODEL = "house/model"

NOTHING: Mapping[str, Any] = MappingProxyType({})

CHANNEL = """
[[channels]]
name = "{name}"
dialect = "openai"
base_url = "{url}"
priority = {priority}
models = {{ "{model}" = "m" }}
"""


def configuration(
    *urls: str,
    model: str = MODEL,
    channel: str = "",
    prices: Mapping[str, object] = NOTHING,
    state: Mapping[str, str] = NOTHING,
) -> str:
    """A file with a channel to each of these providers, in this order of preference.

    The channels are called `house`, `house-1` …; `channel` is added to each. `prices` and `state`
    are keys of the model's table and of the table `state`. Tables may be appended to the file.
    """
    text = "".join(
        CHANNEL.format(
            name=f"house-{number}" if number else "house", url=url, priority=number, model=model
        )
        + channel
        for number, url in enumerate(urls)
    )
    if prices:
        text += f'\n[[models]]\nname = "{model}"\n'
        text += "".join(f"{name} = {value}\n" for name, value in prices.items())
    if state:
        text += "\n[state]\n"
        text += "".join(f'{name} = "{value}"\n' for name, value in state.items())
    return text
