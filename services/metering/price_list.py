"""Price list: the price of each public model, from the configuration or as shipped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from importlib import resources

import msgspec

from services.common.chat_names import THINKING_SUFFIX
from services.config import ChannelConfig, Config
from services.config.prices import PriceConfig
from services.context_windows import SNAPSHOT
from services.metering.prices import FREE, PICO_USD, Price
from services.metering.provider_tools import shipped_usd

PRICES_FILE = "prices.json"

DERIVED = re.compile(rf"{THINKING_SUFFIX}$")
"""Suffix of a public name that selects another behaviour at the same price."""

VENDORS: Mapping[str, str] = {"openai-responses": "openai/", "openrouter": "", "vertex": "google/"}
"""Beginnings of names in the shipped list by dialect, where they are not the dialect's name.
OpenRouter's names of models begin with the vendor already."""


class PriceList:
    """Prices by public name.

    Those of the configuration take precedence over shipped ones. A shipped price is found by the
    public name, or else by the dialect and the provider's name of the first channel that has one.
    """

    def __init__(
        self,
        rows: Mapping[str, PriceConfig],
        shipped: Mapping[str, Price] | None = None,
        channels: Sequence[ChannelConfig] = (),
    ) -> None:
        """Build the list from rows of `[[models]]` by name, and `shipped` or `PRICES_FILE`.

        `channels` are those that serve the models.
        """
        self._own = {name: Price.from_config(row) for name, row in rows.items() if row.priced}
        self._own_tools = {name: row.provider_tools_usd for name, row in rows.items()}
        self._shipped = load_shipped() if shipped is None else shipped
        self._channels = sorted(channels, key=lambda channel: channel.priority)
        self._found: dict[str, Price | None] = {}

    @classmethod
    def of(cls, config: Config) -> PriceList:
        """Return the prices of a configuration."""
        rows = {row.name: row.price for row in config.models}
        return cls(rows, channels=config.channels)

    def lookup(self, public_model: str) -> Price | None:
        """Return the price of a model, or None if it has none.

        A `-thinking` name has the price of its base model, and a snapshot that is not listed
        itself has the price of its model. A model that only this machine serves is free.
        """
        if public_model not in self._found:
            self._found[public_model] = self._search(public_model)
        return self._found[public_model]

    def unpriced(self, public_models: Iterable[str]) -> Sequence[str]:
        """Return those of the models that have no price."""
        return [name for name in public_models if self.lookup(name) is None]

    def _search(self, public_model: str) -> Price | None:
        """Return the price of a model, with those of the tools that its providers run."""
        price = self._search_model(public_model)
        if price is None:
            return None
        base_names = list(_derivations(public_model, DERIVED))
        usd: dict[str, Decimal] = {}
        for channel in self._channels:
            for name in base_names:
                if name in channel.models:
                    usd = {**shipped_usd(channel, channel.models[name]), **usd}
        for name in base_names:
            usd |= self._own_tools.get(name, {})
        tools = {name: int(value * PICO_USD) for name, value in usd.items()}
        return msgspec.structs.replace(price, provider_tools=tools) if tools else price

    def _search_model(self, public_model: str) -> Price | None:
        base_names = list(_derivations(public_model, DERIVED))
        serving = [
            (channel, channel.models[name])
            for name in base_names
            for channel in self._channels
            if name in channel.models
        ]
        searches = (
            (self._own, base_names),
            (self._shipped, _derivations(public_model, DERIVED, SNAPSHOT)),
            *((self._shipped, _shipped_names(channel, model)) for channel, model in serving),
        )
        for prices, names in searches:
            for name in names:
                if (price := prices.get(name)) is not None:
                    return price
        only_local = bool(serving) and all(channel.local for channel, _ in serving)
        return FREE if only_local else None


class _Shipped(msgspec.Struct):
    prices: dict[str, PriceConfig]


def load_shipped() -> Mapping[str, Price]:
    """Read the shipped prices by public name. JSON takes 4 ms, TOML would take 20 ms."""
    text = resources.files(__package__).joinpath(PRICES_FILE).read_bytes()
    rows = msgspec.json.decode(text, type=_Shipped).prices
    return {name: Price.from_config(row) for name, row in rows.items()}


def _derivations(name: str, *suffixes: re.Pattern[str]) -> Iterator[str]:
    """Yield the name, then the name without one suffix after the other."""
    yield name
    for suffix in suffixes:
        shorter = suffix.sub("", name)
        if shorter != name:
            name = shorter
            yield name


def _shipped_names(channel: ChannelConfig, upstream_model: str) -> Iterator[str]:
    """Yield the names under which the shipped list may have a provider's model."""
    vendor = VENDORS.get(channel.dialect, f"{channel.dialect}/")
    return _derivations(vendor + upstream_model, SNAPSHOT)
