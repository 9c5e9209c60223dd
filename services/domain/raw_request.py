"""Raw request: a request in the form of another API, which its providers get byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

RawApi = Literal["", "anthropic_messages", "openai_responses"]
"""API of a raw request."""


class RawRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Request in the form of another API."""

    api: RawApi
    body: bytes
    """A JSON object. Its `model` is the public name of the model."""
    headers: Mapping[str, str] = {}
    """Headers of the API that the caller sent, in lower case."""
    members: Mapping[str, msgspec.Raw] | None = None
    """The members of the body, where an edge in the same process has read them already."""
