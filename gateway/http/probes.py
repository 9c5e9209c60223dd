"""/healthz: this process lives. /readyz: it can serve, because the service can."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import msgspec
from aiohttp import web
from grpc_health.v1 import health_pb2

from gateway.config import EdgeConfig

READY = "ready"
ASKED_MAX = 6
"""Calls go to all services in turn. One that is on its way out does not speak for the others, or
all edges would be out of service whenever one service is restarted."""


class Probes:
    """The handlers of the routes. They need no key."""

    def __init__(self, channel: grpc.aio.Channel, config: EdgeConfig) -> None:
        # As the generated stub does, whose published types have no methods.
        self._check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._timeout_s = config.readiness_timeout_s
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether the edge is on its way out."""
        return self._stopping

    def stop(self) -> None:
        """From now on the edge is not ready, whatever the service says."""
        self._stopping = True

    async def live(self, _: web.Request) -> web.Response:
        """200 as long as anything can be answered at all."""
        return _json(200, "alive")

    async def ready(self, _: web.Request) -> web.Response:
        """200 if a service says that it serves, 503 otherwise."""
        if self._stopping:
            return _json(503, "stopping")
        loop = asyncio.get_running_loop()
        due = loop.time() + self._timeout_s
        said = ""
        for _turn in range(ASKED_MAX):
            said = await self._asked(due - loop.time())
            if said == READY:
                return _json(200, said)
        return _json(503, said)

    async def _asked(self, timeout_s: float) -> str:
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
