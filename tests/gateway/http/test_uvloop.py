"""Edge on uvloop, which production uses, and whose transports are not asyncio's."""

from __future__ import annotations

import os
import subprocess
import sys

from gateway.config import EdgeConfig

PROGRAM = r"""
import asyncio, gc, grpc, uvloop
from gateway.config import EdgeConfig
from gateway.http.client_connection import ClientConnection
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.server import serving_rest
from services.common.addresses import split_address

async def main():
    metrics = EdgeMetrics()
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        async with serving_rest(channel, "127.0.0.1:0", EdgeConfig(), metrics=metrics) as bound:
            reader, writer = await asyncio.open_connection(*split_address(bound))
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readline()
            objects = gc.get_objects()
            (connection,) = (each for each in objects if isinstance(each, ClientConnection))
            print(connection.transport.get_write_buffer_limits()[1])
            print([sample.value for family in metrics.collect() for sample in family.samples
                   if sample.name == "pomogator_edge_connections"])
            writer.close()

uvloop.run(main())
"""


def test_unsent_bytes_are_bounded_and_connections_counted() -> None:
    """Both work as on asyncio's own loop."""
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM),
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout.split("\n")[:2] == [str(EdgeConfig().write_buffer_bytes), "[1]"], done
