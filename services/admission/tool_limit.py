"""Bound of the calls of tools that a provider runs, for the hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.domain.spec import Tool
from services.providers.translate.tool_types import provider_tools

USES = 5
"""Calls of a tool that are held where the request allows any number of them."""


def tool_uses(tools: Sequence[Tool]) -> Mapping[str, int]:
    """Return how often the provider may run each of its tools, by the names of their prices."""
    uses: dict[str, int] = {}
    for tool in provider_tools(tools):
        most = USES if tool.uses_max is None else max(0, tool.uses_max)
        uses[tool.name] = uses.get(tool.name, 0) + most
    return uses
