"""What a row of `[[models]]` says of prices."""

from __future__ import annotations

from decimal import Decimal

import msgspec

DECIMALS = {"request_usd": 12}
"""How many decimals a price may have, where it is not `DECIMALS_PER_MTOK`."""

DECIMALS_PER_MTOK = 6
"""Together with the above: no part of a picodollar."""

USD_MAX = 1_000_000


class RatesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of tokens in US dollars per million: decimal numbers, best as strings."""

    prompt_usd_per_mtok: Decimal | None = None
    """Of the prompt, what was not cached. Left out: nothing."""
    cache_read_usd_per_mtok: Decimal | None = None
    """Of the prompt, what was read from the provider's cache. Left out: nothing."""
    cache_write_usd_per_mtok: Decimal | None = None
    """Of the prompt, what was written to the provider's cache. Left out: nothing."""
    cache_write_1h_usd_per_mtok: Decimal | None = None
    """Of that, what is kept for an hour. Left out: as for the other cache writes."""
    completion_usd_per_mtok: Decimal | None = None
    """What was generated. Left out: nothing."""
    thinking_usd_per_mtok: Decimal | None = None
    """Of that, what was spent on reasoning. Left out: as for the rest of the completion."""

    def __post_init__(self) -> None:
        """Refuses what cannot be billed exactly."""
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, Decimal):
                _check(field, value)


class TierConfig(RatesConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices for long prompts."""

    above_prompt_tokens: int
    """A prompt of more tokens than this is billed by these prices, and so is its completion."""


class PriceConfig(RatesConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price of a model. A row that names any part of it replaces the shipped price whole."""

    request_usd: Decimal | None = None
    """Of each call. Left out: nothing."""
    tiers: tuple[TierConfig, ...] = ()
    """Prices for long prompts, shortest first."""

    def __post_init__(self) -> None:
        """Refuses tiers out of order."""
        super().__post_init__()
        starts = [tier.above_prompt_tokens for tier in self.tiers]
        if starts != sorted(set(starts)) or any(start < 1 for start in starts):
            raise ValueError("tiers: above_prompt_tokens must be positive and rise")

    @classmethod
    def of(cls, row: object) -> PriceConfig:
        """The price in a row that has fields of these names among others.

        ValueError, which names the field, where it cannot be billed exactly.
        """
        return cls(**{field: getattr(row, field) for field in cls.__struct_fields__})

    @property
    def priced(self) -> bool:
        """Whether any part is named."""
        return self != PriceConfig()


def _check(field: str, value: Decimal) -> None:
    decimals = DECIMALS.get(field, DECIMALS_PER_MTOK)
    if not value.is_finite() or not 0 <= value <= USD_MAX:
        raise ValueError(f"{field}: must be from 0 to {USD_MAX}")
    if value != round(value, decimals):
        raise ValueError(f"{field}: has more than {decimals} decimals")
