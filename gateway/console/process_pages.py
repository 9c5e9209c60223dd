"""Process pages: limits with their use, load, and configuration with its reload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from gateway.console.askers import operator_of
from gateway.console.form_fields import Fields
from gateway.console.operation_calls import OperationCalls
from gateway.console.operator_pages import CONFIGURATION
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit
from gateway.overload.body_budget import BodyBudget
from gateway.overload.thresholds import MEMORY_CRITICAL, MEMORY_LOW, MEMORY_SHORT

LIMIT_KINDS: Mapping[int, str] = {1: "keys.rpm", 2: "keys.tpm", 3: "keys.concurrent"}
"""Names of texts, by the kind's number in the contract."""

MEMORY_STAGES: Sequence[tuple[float, str]] = (
    (MEMORY_LOW, "load.memory_low"),
    (MEMORY_SHORT, "load.memory_short"),
    (MEMORY_CRITICAL, "load.memory_critical"),
)
"""Stages of load shedding, with the names of their texts."""

DIFF_CLASSES: Mapping[str, str] = {"+": "added", "-": "removed", "@": "place"}
"""Classes of the lines of a diff, by their first character."""


class DiffLine(NamedTuple):
    """One line of a diff."""

    text: str
    kind: str
    """CSS class of the line. Empty: the line is the same in both configurations."""


class ProcessPages:
    """Pages about the process of the service, for operators."""

    def __init__(self, pages: Pages, calls: OperationCalls, bodies: BodyBudget) -> None:
        """`bodies` is the memory for large requests of this process."""
        self._pages = pages
        self._calls = calls
        self._bodies = bodies

    async def limits(self, visit: Visit) -> web.Response:
        """All limits, with their fullest counters."""
        limits = await self._calls.limits(operator_of(visit))
        return self._pages.render(visit, "limits", limits=limits, kinds=LIMIT_KINDS)

    async def load(self, visit: Visit) -> web.Response:
        """The load of the process, and the thresholds at which it refuses calls."""
        load = await self._calls.load(operator_of(visit))
        refusals = sorted(load.refusals.items(), key=lambda item: (-item[1], item[0]))
        return self._pages.render(
            visit,
            "load",
            load=load,
            refusals=refusals,
            bodies=self._bodies,
            memory_stages=MEMORY_STAGES,
        )

    async def configuration(self, visit: Visit) -> web.Response:
        """The configuration in use, and what a reload would change."""
        return await self._configuration(visit, is_stale=False)

    async def reload(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Reload the configuration, unless the file has changed since its changes were shown."""
        asker = operator_of(visit)
        if Fields(form).text("shown") != (await self._calls.configuration(asker)).digest:
            return await self._configuration(visit, is_stale=True)
        await self._calls.reload(asker)
        return redirect(f"{CONFIGURATION}?reloaded")

    async def _configuration(self, visit: Visit, *, is_stale: bool) -> web.Response:
        found = await self._calls.configuration(operator_of(visit))
        return self._pages.render(
            visit,
            "configuration",
            status=409 if is_stale else 200,
            configuration=found.running,
            diff=_diff_lines(found.diff),
            problems=found.problems,
            shown=found.digest,
            is_stale=is_stale,
            reloaded=not is_stale and "reloaded" in visit.request.query,
        )


def _diff_lines(diff: str) -> Sequence[DiffLine]:
    """Return the lines of a unified diff, without its two lines of names."""
    return [DiffLine(line, DIFF_CLASSES.get(line[:1], "")) for line in diff.splitlines()[2:]]
