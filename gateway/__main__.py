"""The edge alone: `python -m gateway --target TARGET --rest HOST:PORT`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from aiohttp import web

from gateway.app import create_app, runner
from gateway.channel import open_channel
from gateway.config import EdgeConfig


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests end."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument(
        "--target", required=True, help="the service: HOST:PORT or unix:PATH", metavar="TARGET"
    )
    parser.add_argument(
        "--rest",
        default="127.0.0.1:8080",
        type=_address,
        help="where to listen (default: 127.0.0.1:8080)",
        metavar="HOST:PORT",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    host, port = options.rest
    asyncio.run(serve(options.target, host, port, EdgeConfig()))


async def serve(target: str, host: str, port: int, config: EdgeConfig) -> None:
    """Serves the REST API at `host`:`port` until the process is told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_channel(target, config) as channel:
        serving = runner(create_app(channel, config))
        await serving.setup()
        try:
            await web.TCPSite(serving, host, port).start()
            for address in serving.addresses:
                logging.getLogger("gateway").info("edge.listening http://%s:%d", *address[:2])
            await stop.wait()
        finally:
            await serving.cleanup()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
