"""The rows of `[[limits]]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

Limit = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
"""The upper end is `services.storage.counters.LIMIT_MAX`."""


class LimitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much something may be used.

    `key`, `model` and `channel` say what is counted. A name: that one. `*`: each one for
    itself. Left out: all together. So `key = "*", model = "m"` counts every key's use of
    the model m, and `channel = "*"` all use of each channel.
    """

    key: str = ""
    """A key's ID, such as `key-4f1d…`, or `*`."""
    model: str = ""
    """A model's public name, without `-thinking`, or `*`."""
    channel: str = ""
    """A channel's name, or `*`. A channel over its limit is passed over."""
    rpm: Limit | None = None
    """Requests in a minute."""
    tpm: Limit | None = None
    """Tokens in a minute, prompt and completion."""
    concurrency: Limit | None = None
    """Calls at a time."""
