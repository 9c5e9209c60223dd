"""Prices of tools that a provider runs itself, by its dialect.

Cache writes, whose tokens cost more, are rates of a model: `services.metering.prices.Rates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

SHIPPED_USD: Mapping[str, Mapping[str, Decimal]] = {
    # https://platform.claude.com/docs/en/about-claude/pricing: 10 USD for 1,000 searches.
    "anthropic": {"web_search": Decimal("0.01"), "web_fetch": Decimal(0)},
}
"""US dollars for each call of a tool that the provider reports, by its name without a date. Code is
billed by the hour, which no answer reports."""
