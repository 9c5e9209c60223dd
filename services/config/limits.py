"""The rows of `[[limits]]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

Limit = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
"""The upper end is `services.storage.counters.LIMIT_MAX`."""


class LimitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit.

    `key`, `model` and `channel` select the calls that count. A name: that one. `*`: each one
    separately. Left out: all together. So `key = "*", model = "m"` limits every key's use of
    the model m, and `channel = "*"` all use of each channel.
    """

    key: str = ""
    """ID of a key, such as `key-4f1d…`, or `*`."""
    model: str = ""
    """Public name of a model, without `-thinking`, or `*`."""
    channel: str = ""
    """Name of a channel, or `*`. Calls skip a channel above its limit."""
    rpm: Limit | None = None
    """Requests a minute."""
    tpm: Limit | None = None
    """Tokens a minute, prompt and completion."""
    concurrency: Limit | None = None
    """In-flight calls."""
