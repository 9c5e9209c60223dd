"""Prices of models, and the cost of a call in exact integers.

Prices are whole picodollars (10^-12 USD) per token, which is US dollars per million tokens with
six decimals. A cost is whole nanodollars (10^-9 USD), rounded up once, at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from importlib import resources
from typing import Self

import msgspec

from services.common.chat_names import THINKING_SUFFIX
from services.config import ChannelConfig, Config
from services.config.prices import PriceConfig, RatesConfig
from services.context_windows import SNAPSHOT
from services.domain.usage import Usage

PRICES_FILE = "prices.json"

PICO_PER_NANO = 1000
BASIS_POINTS = 10_000
PICO_USD = Decimal(10) ** 12
PICO_USD_PER_TOKEN = Decimal(10) ** 6
"""Picodollars per token of one US dollar per million tokens."""

DERIVED = re.compile(rf"{THINKING_SUFFIX}$")
"""Suffix of a public name that selects another behaviour at the same price."""

VENDORS: Mapping[str, str] = {"openai-responses": "openai/", "openrouter": ""}
"""Beginnings of names in the shipped list by dialect, where they are not the dialect's name.
OpenRouter's names of models begin with the vendor already."""


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Picodollars per token, by kind of token."""

    prompt: int = 0
    """Uncached prompt."""
    cache_read: int = 0
    """Prompt read from the provider's cache."""
    cache_write: int = 0
    """Prompt written to the provider's cache."""
    cache_write_1h: int = 0
    """Prompt written to the provider's cache for an hour."""
    completion: int = 0
    """Generated text and tool calls."""
    thinking: int = 0
    """Generated reasoning."""
    prompt_audio: int | None = None
    """Uncached sound in the prompt. None: as other prompt tokens."""
    prompt_image: int | None = None
    """Uncached images in the prompt. None: as other prompt tokens."""
    completion_audio: int | None = None
    """Generated sound. None: as other generated tokens."""
    completion_image: int | None = None
    """Generated images. None: as other generated tokens."""

    @classmethod
    def of(cls, config: RatesConfig, **others: object) -> Self:
        """Return the rates of a row of the configuration.

        Cached tokens without a rate have the prompt's, and reasoning has the completion's.
        """
        prompt = _per_token(config.prompt_usd_per_mtok, 0)
        cache_write = _per_token(config.cache_write_usd_per_mtok, prompt)
        completion = _per_token(config.completion_usd_per_mtok, 0)
        return cls(
            prompt=prompt,
            cache_read=_per_token(config.cache_read_usd_per_mtok, prompt),
            cache_write=cache_write,
            cache_write_1h=_per_token(config.cache_write_1h_usd_per_mtok, cache_write),
            completion=completion,
            thinking=_per_token(config.thinking_usd_per_mtok, completion),
            prompt_audio=_own_rate(config.prompt_audio_usd_per_mtok),
            prompt_image=_own_rate(config.prompt_image_usd_per_mtok),
            completion_audio=_own_rate(config.completion_audio_usd_per_mtok),
            completion_image=_own_rate(config.completion_image_usd_per_mtok),
            **others,
        )

    def pico(self, usage: Usage) -> int:
        """Return the picodollars for the tokens of `usage`."""
        read, write = usage.cache_read_token_count, usage.cache_write_token_count
        hour, thinking = usage.cache_write_1h_token_count, usage.thinking_token_count
        uncached = max(0, usage.prompt_token_count - read - write)
        said = max(0, usage.completion_token_count - thinking)
        pico = (
            uncached * self.prompt
            + read * self.cache_read
            + max(0, write - hour) * self.cache_write
            + hour * self.cache_write_1h
            + said * self.completion
            + thinking * self.thinking
        )
        sound, pictures = usage.prompt_audio_token_count, usage.prompt_image_token_count
        if sound or pictures:
            media = ((sound, self.prompt_audio), (pictures, self.prompt_image))
            pico += _surcharge(uncached, self.prompt, media)
        sound, pictures = usage.completion_audio_token_count, usage.completion_image_token_count
        if sound or pictures:
            media = ((sound, self.completion_audio), (pictures, self.completion_image))
            pico += _surcharge(said, self.completion, media)
        return pico

    @property
    def prompt_max(self) -> int:
        """Highest rate of a prompt token."""
        media = self.prompt_audio or 0, self.prompt_image or 0
        return max(self.prompt, self.cache_read, self.cache_write, self.cache_write_1h, *media)

    @property
    def completion_max(self) -> int:
        """Highest rate of a generated token."""
        media = self.completion_audio or 0, self.completion_image or 0
        return max(self.completion, self.thinking, *media)


class Tier(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """Rates for long prompts."""

    above_prompt_tokens: int
    """Prompt length above which the rates apply to all tokens of a call."""


class Price(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """Price of a model. The default is free."""

    request: int = 0
    """Picodollars per call."""
    tiers: tuple[Tier, ...] = ()
    """Rates for long prompts, shortest first."""

    @classmethod
    def from_config(cls, row: PriceConfig) -> Price:
        """Return the price of a row of the configuration."""
        tiers = tuple(
            Tier.of(tier.over(row), above_prompt_tokens=tier.above_prompt_tokens)
            for tier in row.tiers
        )
        request = int((row.request_usd or 0) * PICO_USD)
        return cls.of(row, request=request, tiers=tiers)

    @classmethod
    def from_json(cls, snapshot: str) -> Price:
        """Decode the result of `to_json`."""
        return msgspec.json.decode(snapshot, type=cls)

    def to_json(self) -> str:
        """Encode the price for its hold, so that a call is billed by the price at its admission."""
        return msgspec.json.encode(self).decode()

    def rates(self, prompt_tokens: int) -> Rates:
        """Return the rates for a call with a prompt of this length."""
        rates: Rates = self
        for tier in self.tiers:
            if prompt_tokens > tier.above_prompt_tokens:
                rates = tier
        return rates


FREE = Price()


def cost_nano(usage: Usage, price: Price, *, markup_bp: int = 0) -> int:
    """Return the nanodollars for `usage`, plus a markup in hundredths of a percent.

    More tokens of any kind never cost less, unless the rates of longer prompts are lower.
    """
    pico = price.rates(usage.prompt_token_count).pico(usage) + price.request
    return _nano(pico, markup_bp)


def estimate_nano(prompt_tokens: int, max_tokens: int, price: Price, *, markup_bp: int = 0) -> int:
    """Return the highest cost of a call in nanodollars: every token at the highest rate.

    `max_tokens` is for all choices together. No usage within both numbers costs more.
    """
    highest = prompt_tokens * price.prompt_max + max_tokens * price.completion_max
    for tier in price.tiers:
        if prompt_tokens > tier.above_prompt_tokens:
            cost = prompt_tokens * tier.prompt_max + max_tokens * tier.completion_max
            highest = max(highest, cost)
    return _nano(highest + price.request, markup_bp)


def completion_nano(tokens: int, price: Price, *, markup_bp: int = 0) -> int:
    """Return the highest cost of generated tokens in nanodollars, whatever the prompt's length."""
    highest = max(rates.completion_max for rates in (price, *price.tiers))
    return _nano(tokens * highest, markup_bp)


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


def _surcharge(tokens: int, rate: int, media: Iterable[tuple[int, int | None]]) -> int:
    """Return what tokens cost beyond `rate`, as some stand for media with rates of their own."""
    pico = 0
    for count, own_rate in media:
        if own_rate is not None:
            share = min(count, tokens)
            pico += share * (own_rate - rate)
            tokens -= share
    return pico


def _own_rate(usd_per_mtok: Decimal | None) -> int | None:
    return None if usd_per_mtok is None else _per_token(usd_per_mtok, 0)


def _per_token(usd_per_mtok: Decimal | None, default: int) -> int:
    return default if usd_per_mtok is None else int(usd_per_mtok * PICO_USD_PER_TOKEN)


def _nano(pico: int, markup_bp: int) -> int:
    return -(-pico * (BASIS_POINTS + markup_bp) // (BASIS_POINTS * PICO_PER_NANO))
