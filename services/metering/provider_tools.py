"""Prices of tools that a provider runs itself, as shipped.

Cache writes, whose tokens cost more, are rates of a model: `services.metering.prices.Rates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import urlsplit

from services.capabilities import lookup
from services.config import ChannelConfig

BY_DIALECT: Mapping[str, Mapping[str, Decimal]] = {
    # https://platform.claude.com/docs/en/about-claude/pricing: 10 USD for 1,000 searches.
    "anthropic": {"web_search": Decimal("0.01"), "web_fetch": Decimal(0)},
}
"""US dollars for each call of a tool that the provider reports, by its name without a date. Code is
billed by the hour, which no answer reports."""

BY_HOST: Mapping[str, Mapping[str, Decimal]] = {
    # https://openai.com/api/pricing: 10 USD for 1,000 searches of models that reason, in either
    # version of the tool, and 2.50 USD for 1,000 searches of files. Not here: containers, which
    # calls share, and pictures, whose tokens no answer reports.
    "api.openai.com": {"web_search": Decimal("0.01"), "file_search": Decimal("0.0025")},
}
"""The same of one provider, where others speak its dialect and have other prices."""

OF_REASONING: Mapping[str, frozenset[str]] = {"api.openai.com": frozenset({"web_search"})}
"""Tools whose price is another one for models that do not reason: by the version of the tool, and
for some of them with tokens that no answer reports."""


def shipped_usd(channel: ChannelConfig, model: str) -> Mapping[str, Decimal]:
    """Return the shipped prices of a channel's tools for a provider's model."""
    host = urlsplit(channel.base_url).hostname or ""
    found = {**BY_DIALECT.get(channel.dialect, {}), **BY_HOST.get(host, {})}
    if lookup(model, dialect=channel.dialect).thinking in {"none", "unknown"}:
        for name in OF_REASONING.get(host, ()):
            del found[name]
    return found
