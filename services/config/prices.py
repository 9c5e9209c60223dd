"""Prices in the rows of `[[models]]`."""

from __future__ import annotations

from decimal import Decimal

import msgspec

DECIMALS = {"request_usd": 12, "provider_tools_usd": 12}
"""Decimals that a price may have, where not `DECIMALS_PER_MTOK`."""

DECIMALS_PER_MTOK = 6
"""Decimals of the other prices. Every price is then a whole number of picodollars."""

USD_MAX = 1_000_000

_OF_PROMPT = ("prompt_", "cache_")
"""Beginnings of the names of prices of prompt tokens. The others are of the completion."""


class RatesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of a million tokens in US dollars: decimal numbers, best as strings."""

    prompt_usd_per_mtok: Decimal | None = None
    """Prompt tokens that were not cached. Left out: free."""
    cache_read_usd_per_mtok: Decimal | None = None
    """Prompt tokens read from the provider's cache. Left out: the price of the prompt."""
    cache_write_usd_per_mtok: Decimal | None = None
    """Prompt tokens written to the provider's cache. Left out: the price of the prompt."""
    cache_write_1h_usd_per_mtok: Decimal | None = None
    """Cache writes kept for an hour. Left out: the price of other cache writes."""
    completion_usd_per_mtok: Decimal | None = None
    """Completion tokens. Left out: free."""
    thinking_usd_per_mtok: Decimal | None = None
    """Reasoning tokens of the completion. Left out: the price of the completion."""
    prompt_audio_usd_per_mtok: Decimal | None = None
    """Uncached audio in the prompt. Left out: the price of the prompt."""
    prompt_image_usd_per_mtok: Decimal | None = None
    """Uncached images in the prompt. Left out: the price of the prompt."""
    completion_audio_usd_per_mtok: Decimal | None = None
    """Generated audio. Left out: the price of the completion."""
    completion_image_usd_per_mtok: Decimal | None = None
    """Generated images. Left out: the price of the completion."""

    def __post_init__(self) -> None:
        """Refuse prices that cannot be billed exactly."""
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, Decimal):
                _check(field, value)


class TierConfig(RatesConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices for long prompts. Prices that are left out are those of the model's row."""

    above_prompt_tokens: int
    """Calls whose prompt has more tokens than this have these prices, completion included."""

    def over(self, row: RatesConfig) -> RatesConfig:
        """Return the prices of the tier, with those of its row where the tier has none.

        A prompt's price stands for those of its cached parts, too, and the completion's for that
        of reasoning.
        """
        prompt = row if self.prompt_usd_per_mtok is None else RatesConfig()
        completion = row if self.completion_usd_per_mtok is None else RatesConfig()
        values = {}
        for field in RatesConfig.__struct_fields__:
            inherited = getattr(prompt if field.startswith(_OF_PROMPT) else completion, field)
            own = getattr(self, field)
            values[field] = inherited if own is None else own
        return RatesConfig(**values)


class PriceConfig(RatesConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Price of a model. A row with any part of it replaces the whole shipped price."""

    request_usd: Decimal | None = None
    """Each call. Left out: free."""
    provider_tools_usd: dict[str, Decimal] = {}
    """Each call of a tool that the provider runs, by the tool's name, such as `web_search`; added
    to the shipped ones. A row with these alone keeps the shipped price of the model."""
    tiers: tuple[TierConfig, ...] = ()
    """Prices for long prompts, shortest first."""

    def __post_init__(self) -> None:
        """Refuse tiers out of order."""
        super().__post_init__()
        for name, value in self.provider_tools_usd.items():
            _check(f"provider_tools_usd.{name}", value)
        starts = [tier.above_prompt_tokens for tier in self.tiers]
        if starts != sorted(set(starts)) or any(start < 1 for start in starts):
            raise ValueError("tiers: above_prompt_tokens must be positive and rise")

    @classmethod
    def of(cls, row: object) -> PriceConfig:
        """Return the price in a row that has fields of these names, among others.

        Raises ValueError, which names the field, if it cannot be billed exactly.
        """
        return cls(**{field: getattr(row, field) for field in cls.__struct_fields__})

    @property
    def priced(self) -> bool:
        """Whether the row has any part of a price."""
        return msgspec.structs.replace(self, provider_tools_usd={}) != PriceConfig()


def _check(field: str, value: Decimal) -> None:
    decimals = DECIMALS.get(field.partition(".")[0], DECIMALS_PER_MTOK)
    if not value.is_finite() or not 0 <= value <= USD_MAX:
        raise ValueError(f"{field}: must be from 0 to {USD_MAX}")
    if value != round(value, decimals):
        raise ValueError(f"{field}: has more than {decimals} decimals")
