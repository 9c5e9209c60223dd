"""Process pages: limits with their use, load, and configuration with its reload."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiohttp import web
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from gateway.console.askers import OperatorAsker, ask, operator_of
from gateway.console.form_fields import Fields
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

    def __init__(self, pages: Pages, operations: OperationsServiceStub, bodies: BodyBudget) -> None:
        """`bodies` is the memory for large requests of this process."""
        self._pages = pages
        self._operations = operations
        self._bodies = bodies

    async def limits(self, visit: Visit) -> web.Response:
        """All limits, with their fullest counters."""
        request = pb.ListLimitsRequest()
        found = await ask(self._operations.ListLimits, request, operator_of(visit))
        return self._pages.render(visit, "limits", limits=found.limits, kinds=LIMIT_KINDS)

    async def load(self, visit: Visit) -> web.Response:
        """The load of the process, and the thresholds at which it refuses calls."""
        load = await ask(self._operations.GetLoad, pb.GetLoadRequest(), operator_of(visit))
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
        if Fields(form).text("shown") != _digest(await self._read(asker)):
            return await self._configuration(visit, is_stale=True)
        request = pb.ReloadConfigurationRequest()
        await ask(self._operations.ReloadConfiguration, request, asker)
        return redirect(f"{CONFIGURATION}?reloaded")

    async def _configuration(self, visit: Visit, *, is_stale: bool) -> web.Response:
        found = await self._read(operator_of(visit))
        return self._pages.render(
            visit,
            "configuration",
            status=409 if is_stale else 200,
            configuration=found.configuration_json,
            diff=_diff_lines(found.diff),
            problems=found.problems,
            shown=_digest(found),
            is_stale=is_stale,
            reloaded=not is_stale and "reloaded" in visit.request.query,
        )

    async def _read(self, asker: OperatorAsker) -> pb.GetConfigurationResponse:
        request = pb.GetConfigurationRequest()
        return await ask(self._operations.GetConfiguration, request, asker)


def _digest(found: pb.GetConfigurationResponse) -> str:
    """Return the digest of the changes and problems that the page shows."""
    return hashlib.sha256("\n".join([found.diff, *found.problems]).encode()).hexdigest()


def _diff_lines(diff: str) -> Sequence[DiffLine]:
    """Return the lines of a unified diff, without its two lines of names."""
    return [DiffLine(line, DIFF_CLASSES.get(line[:1], "")) for line in diff.splitlines()[2:]]
