"""The table `[prompt_cache]`."""

from __future__ import annotations

import msgspec


class PromptCacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Use of the providers' prompt caches, in which a long prompt that comes again costs less."""

    affinity: bool = True
    """Whether the calls of one session go to one channel and key while these answer, since each
    key of a provider has a cache of its own. Only of prompts of 1,024 tokens or more, to models
    whose cached tokens have a lower price."""
    marks: bool = True
    """Whether prompts of 1,024 tokens or more whose beginning comes again within five minutes get
    cache marks at channels of the dialect `anthropic`, with a note, unless the caller sets some."""
