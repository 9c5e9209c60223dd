"""A configuration that offers no model: a warning at the start and at each reload, and its text."""

from __future__ import annotations

import logging

from services.config import Config

log = logging.getLogger(__name__)

NO_MODELS = (
    "no models: give a configuration with [[channels]] by --config, or set a provider's key "
    "(ANTHROPIC_API_KEY, OPENAI_API_KEY, OPENROUTER_API_KEY) without --config or with "
    "`defaults = true`"
)
"""What operators are told whose configuration offers no model."""


def log_missing(config: Config) -> None:
    """Log that there are no models, where that is so."""
    if not config.channels:  # A channel has a model at least.
        log.warning("models.missing", extra={"remedy": NO_MODELS})
