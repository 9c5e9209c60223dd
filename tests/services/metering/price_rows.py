"""Rows of prices, and the costs that they make."""

from __future__ import annotations

import msgspec

from services.config.prices import PriceConfig
from services.domain.usage import Usage
from services.metering.prices import Price, Tariff


def cost_nano(usage: Usage, price: Price, *, markup_bp: int = 0) -> int:
    """Cost of a usage, with a markup."""
    return Tariff(price, markup_bp).cost_nano(usage)


def row(**keys: object) -> PriceConfig:
    """Row of the configuration."""
    return msgspec.convert(keys, PriceConfig)
