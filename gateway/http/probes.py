"""Probes: `/healthz` for liveness, `/readyz` for readiness, which needs a ready service.

`/health` is another name of `/healthz`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import msgspec
from aiohttp import web
from grpc_health.v1 import health_pb2

from gateway.config import EdgeConfig

READY = "ready"
CHECKS_MAX = 6
"""Checks of one probe. Calls go to all services in turn, and one ready service is enough: otherwise
all edges would be out of service whenever one service is restarted."""


class Probes:
    """Handlers of the probes, which need no key."""

    def __init__(self, channel: grpc.aio.Channel, config: EdgeConfig) -> None:
        # By hand, since the published types of the generated stub have no methods.
        self._check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._timeout_s = config.readiness_timeout_s
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether the edge is draining."""
        return self._stopping

    def stop(self) -> None:
        """Turn readiness false for good."""
        self._stopping = True

    async def live(self, _: web.Request) -> web.Response:
        """Answer 200 as long as the process can answer at all."""
        return _json(200, "alive")

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 if a service is ready, else 503."""
        if self._stopping:
            return _json(503, "stopping")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        state = ""
        for _check in range(CHECKS_MAX):
            state = await self._service_state(deadline - loop.time())
            if state == READY:
                return _json(200, state)
        return _json(503, state)

    async def _service_state(self, timeout_s: float) -> str:
        try:
            answer = await self._check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return "unreachable"
        serves = answer.status == health_pb2.HealthCheckResponse.SERVING
        return READY if serves else "not serving"


PROBES: Final = web.AppKey("probes", Probes)


def _json(status: int, word: str) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode({"status": word}),
        content_type="application/json",
    )
