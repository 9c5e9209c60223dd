"""/healthz: this process lives. /readyz: it can serve, because the service can."""

from __future__ import annotations

import grpc
import msgspec
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.config import EdgeConfig


class Probes:
    """The handlers of the routes. They need no key."""

    def __init__(self, channel: grpc.aio.Channel, config: EdgeConfig) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)
        self._timeout_s = config.readiness_timeout_s

    async def live(self, _: web.Request) -> web.Response:
        """200 as long as anything can be answered at all."""
        return _json(200, "alive")

    async def ready(self, _: web.Request) -> web.Response:
        """200 if the service says that it serves, 503 otherwise."""
        try:
            answer = await self._stub.Check(
                health_pb2.HealthCheckRequest(), timeout=self._timeout_s
            )
        except grpc.aio.AioRpcError:
            return _json(503, "unreachable")
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return _json(503, "not serving")
        return _json(200, "ready")


def _json(status: int, word: str) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode({"status": word}),
        content_type="application/json",
    )
