"""The table `[reasoning]`."""

from __future__ import annotations

from typing import Literal

import msgspec


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reasoning of models."""

    remember: bool = True
    """Whether the sealed reasoning of answers with tool calls is kept for an hour, in memory or in
    Redis, and restored in later requests of the same account that have the calls without it. Most
    clients do not send it back, and without it Claude and Gemini think no further."""
    content: Literal["array", "text"] = "array"
    """Content of whole REST answers of `-thinking` names: an array with the reasoning, or a string,
    which typed clients expect. A key (`--text-content`) and a call (`x-pomogator-content: text`)
    can ask for the string, too."""
    list_thinking_names: bool = True
    """Whether the list of models has the `-thinking` names. They are usable in any case."""
