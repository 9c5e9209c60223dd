"""The edge alone: `python -m gateway --target TARGET --rest HOST:PORT`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Sequence

import uvloop

from gateway import logs
from gateway.channel import open_channel
from gateway.config import EdgeConfig
from gateway.server import serving, split_address

_log = logging.getLogger("gateway")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests end."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument(
        "--target", required=True, help="the service: HOST:PORT or unix:PATH", metavar="TARGET"
    )
    parser.add_argument(
        "--rest",
        type=_address,
        default="127.0.0.1:8080",
        help="where to listen (default: %(default)s)",
        metavar="HOST:PORT",
    )
    options = parser.parse_args(arguments)
    logs.configure()
    uvloop.run(_serve(options.target, options.rest))


def _address(text: str) -> str:
    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


async def _serve(target: str, address: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config = EdgeConfig()
    async with (
        open_channel(target, config) as channel,
        serving(channel, address, config) as bound,
    ):
        _log.info("edge.listening", extra={"address": bound, "target": target})
        await stop.wait()
        _log.info("edge.stopping")


if __name__ == "__main__":
    main()
