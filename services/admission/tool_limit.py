"""Bound of the calls of tools that a provider runs, for the hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.domain.spec import Tool
from services.providers.translate.tool_types import provider_tools

USES_DEFAULT = 5
"""Calls of a tool that a hold covers where the request does not limit them."""


def tool_uses(tools: Sequence[Tool]) -> Mapping[str, int]:
    """Return the calls of each tool of the provider that the hold covers, by name of its price."""
    uses: dict[str, int] = {}
    for tool in provider_tools(tools):
        most = USES_DEFAULT if tool.uses_max is None else max(0, tool.uses_max)
        uses[tool.name] = uses.get(tool.name, 0) + most
    return uses
