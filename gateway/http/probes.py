"""Probes: `/healthz` for liveness, `/readyz` for readiness, which needs a ready service.

`/health` is another name of `/healthz`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from gateway.backend import Backend
from gateway.config import EdgeConfig

CHECKS_MAX = 6
"""Checks of one probe. Calls go to all services in turn, and one ready service is enough: otherwise
all edges would be out of service whenever one service is restarted."""


class Probes:
    """Handlers of the probes, which need no key."""

    def __init__(self, backend: Backend, config: EdgeConfig) -> None:
        self._backend = backend
        self._timeout_s = config.readiness_timeout_s
        self.stopping = False
        """Whether the edge is draining."""

    def stop(self) -> None:
        """Turn readiness false for good."""
        self.stopping = True

    async def live(self, _: web.Request) -> web.Response:
        """Answer 200 as long as the process can answer at all."""
        return _json(200, "alive")

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 if a service is ready, else 503."""
        if self.stopping:
            return _json(503, "stopping")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        state = ""
        for _check in range(CHECKS_MAX):
            state = await self._backend.state(deadline - loop.time())
            if state == "ready":
                return _json(200, state)
        return _json(503, state)


PROBES: Final = web.AppKey("probes", Probes)


def _json(status: int, word: str) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode({"status": word}), content_type="application/json"
    )
