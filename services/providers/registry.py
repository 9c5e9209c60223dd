"""The dialects, by the names that the configuration uses."""

from __future__ import annotations

from collections.abc import Mapping

from services.providers import anthropic, openai, openrouter
from services.providers.base import Dialect

DIALECTS: Mapping[str, Dialect] = {
    "anthropic": anthropic.DIALECT,
    "openai": openai.DIALECT,
    "openrouter": openrouter.DIALECT,
}
"""Every dialect there is. A name here is a value of `dialect` in `[[channels]]`."""
