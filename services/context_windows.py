"""Context windows of models, a shipped list that `deploy/refresh_prices.py` generates."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources

import msgspec

LIST = "context_windows.json"

SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")
"""Date suffix of a name: a snapshot of the model."""


# Amazon Bedrock's names, such as `us.anthropic.claude-opus-4-7-v1:0`, and OpenRouter's `:free`.
_PREFIX = re.compile(
    r"(?:[a-z]{2,6}-)?(?:amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen)-"
)
_SUFFIX = re.compile(r"(?:-v\d)?(?::.*)?$")


class _Shipped(msgspec.Struct):
    tokens: dict[str, int]


def context_tokens(family: str) -> int:
    """Return the context window of the models with this family name in tokens. 0: unknown."""
    known = _windows()
    plain = _SUFFIX.sub("", family, count=1)
    bare = SNAPSHOT.sub("", plain)
    model = SNAPSHOT.sub("", _PREFIX.sub("", plain, count=1))
    return known.get(family) or known.get(plain) or known.get(bare) or known.get(model, 0)


@functools.cache
def _windows() -> Mapping[str, int]:
    text = resources.files("services").joinpath(LIST).read_bytes()
    return msgspec.json.decode(text, type=_Shipped).tokens
