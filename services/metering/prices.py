"""Prices of models, and the cost of a call in exact integers.

Prices are whole picodollars (10^-12 USD) per token, which is US dollars per million tokens with
six decimals. A cost is whole nanodollars (10^-9 USD), rounded up once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Self

import msgspec

from services.config.prices import PriceConfig, RatesConfig
from services.domain.usage import Usage, parts_of

PICO_PER_NANO = 1000
BASIS_POINTS = 10_000
SHARES_PER_NANO = PICO_PER_NANO * BASIS_POINTS
"""Hundredths of a percent of a picodollar in a nanodollar."""
PICO_USD = Decimal(10) ** 12
PICO_USD_PER_TOKEN = Decimal(10) ** 6
"""Picodollars per token of one US dollar per million tokens."""

MEDIA: Mapping[str, str] = {
    "prompt_audio": "prompt",
    "prompt_image": "prompt",
    "completion_audio": "completion",
    "completion_image": "completion",
}
"""Rates of media, with the rates of the tokens that they are among."""


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
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

    @cached_property
    def prompt_max(self) -> int:
        """Highest rate of a prompt token."""
        media = self.prompt_audio or 0, self.prompt_image or 0
        return max(self.prompt, self.cache_read, self.cache_write, self.cache_write_1h, *media)

    @cached_property
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
    provider_tools: dict[str, int] = {}
    """Picodollars per call of a tool that the provider runs, by its name."""

    @classmethod
    def from_config(cls, row: PriceConfig) -> Price:
        """Return the price of a row of the configuration."""
        tiers = tuple(
            Tier.of(tier.over(row), above_prompt_tokens=tier.above_prompt_tokens)
            for tier in row.tiers
        )
        request = int((row.request_usd or 0) * PICO_USD)
        return cls.of(row, request=request, tiers=tiers)

    def to_json(self) -> str:
        """Encode the price for its hold, so that a call is billed by the price at its admission."""
        return msgspec.json.encode(self).decode()

    @cached_property
    def completion_max_of_tiers(self) -> int:
        """Highest rate of a generated token, whatever the prompt's length."""
        return max([rates.completion_max for rates in (self, *self.tiers)])

    def rates(self, prompt_tokens: int) -> Rates:
        """Return the rates for a call with a prompt of this length."""
        rates: Rates = self
        for tier in self.tiers:
            if prompt_tokens > tier.above_prompt_tokens:
                rates = tier
        return rates

    def tools_pico(self, uses: Mapping[str, int]) -> int:
        """Return the picodollars for calls of tools that the provider runs, by their names."""
        return sum([count * self.provider_tools.get(name, 0) for name, count in uses.items()])


FREE = Price()
NO_TOOLS: Mapping[str, int] = {}


class Tariff(msgspec.Struct, frozen=True, eq=False):
    """Price of a model for some callers. Its costs are whole nanodollars, rounded up at the end."""

    price: Price
    markup_bp: int = 0
    """Markup in hundredths of a percent."""

    def cost_nano(self, usage: Usage) -> int:
        """Return the cost of `usage`.

        More tokens of any kind never cost less, unless the rates of longer prompts are lower.
        """
        price = self.price
        rates = price.rates(usage.prompt_token_count) if price.tiers else price
        if any(parts_of(usage)):
            pico = rates.pico(usage)
        else:
            prompt, completion = usage.prompt_token_count, usage.completion_token_count
            pico = prompt * rates.prompt + completion * rates.completion
        pico += price.request
        if usage.provider_tool_counts:
            pico += price.tools_pico(usage.provider_tool_counts)
        return -(-pico * (BASIS_POINTS + self.markup_bp) // SHARES_PER_NANO)

    def estimate_nano(
        self, prompt_tokens: int, max_tokens: int, tool_uses: Mapping[str, int] = NO_TOOLS
    ) -> int:
        """Return the highest cost of a call: every token at the highest rate.

        `max_tokens` is for all choices together, `tool_uses` are calls of tools that the provider
        runs, by their names. No usage within these numbers costs more.
        """
        price = self.price
        pico = prompt_tokens * price.prompt_max + max_tokens * price.completion_max
        for tier in price.tiers:
            if prompt_tokens > tier.above_prompt_tokens:
                cost = prompt_tokens * tier.prompt_max + max_tokens * tier.completion_max
                pico = max(pico, cost)
        if tool_uses:
            pico += price.tools_pico(tool_uses)
        pico += price.request
        return -(-pico * (BASIS_POINTS + self.markup_bp) // SHARES_PER_NANO)

    def completion_nano(self, tokens: int) -> int:
        """Return the highest cost of generated tokens, whatever the prompt's length."""
        pico = tokens * self.price.completion_max_of_tiers
        return -(-pico * (BASIS_POINTS + self.markup_bp) // SHARES_PER_NANO)


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
