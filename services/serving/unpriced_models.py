"""Models without a price: a warning at the start and at each reload, and the text for operators."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from services.config import Config
from services.metering.price_list import PriceList
from services.routing.catalog import Catalog

log = logging.getLogger(__name__)

FATE: Mapping[str, str] = {"refuse": "refused to accounts that pay", "free": "free of charge"}
"""The treatment of models without a price, by `billing.unpriced`."""


def unpriced_models(config: Config) -> Sequence[str]:
    """Return the public models that have no price, without derived names."""
    return PriceList.of(config).unpriced(Catalog(config).base_models)


def log_unpriced(config: Config) -> None:
    """Log the models without a price, if there are any."""
    if models := unpriced_models(config):
        log.warning("models.unpriced", extra={"models": models})


def describe_unpriced(config: Config) -> str:
    """Return a line about the models without a price; empty if there are none."""
    models = unpriced_models(config)
    if not models:
        return ""
    return f"without a price, {FATE[config.billing.unpriced]}: {', '.join(models)}"
