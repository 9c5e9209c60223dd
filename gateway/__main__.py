"""The edge alone: `python -m gateway --target TARGET --rest HOST:PORT`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import uvloop

from gateway.config import EdgeConfig
from gateway.http.tls import ListenerTls, ServiceTls, is_local
from gateway.overload.memory_monitor import MemoryMonitor, watching
from gateway.rpc.channel import open_channel
from gateway.rpc.reconnecting import follow_on_hangup
from gateway.server import serving, split_address
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.metrics_page import showing
from gateway.telemetry.tracer import TracesOptions, opening_tracer
from services.common import json_logs
from services.common.heap import keep_freed_memory
from services.common.log_queue import LinesHandler
from services.common.process import disable_core_dumps, freeze_gc, raise_fd_limit

_log = logging.getLogger("gateway")

VERSION = version("pomogator")

LINKS = ("rest", "target", "metrics")
"""What can be plain text, by option."""

TLS_FILES = (
    ("--tls-cert", "the certificate that clients see, in PEM (default: plain text)"),
    ("--tls-key", "its private key"),
    ("--target-ca", "who vouches for the service (default: plain text)"),
    ("--target-cert", "the certificate that the service sees"),
    ("--target-key", "its private key"),
)


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
    parser.add_argument(
        "--metrics",
        type=_address,
        help="where Prometheus' metrics are shown, in plain text (default: nowhere)",
        metavar="HOST:PORT",
    )
    for option, description in TLS_FILES:
        parser.add_argument(option, type=Path, metavar="FILE", help=description)
    parser.add_argument(
        "--insecure",
        nargs="?",
        type=_links,
        const=frozenset(LINKS),
        default=frozenset(),
        metavar="A,B",
        help=f"what may be plain text beyond this machine, of {', '.join(LINKS)} (alone: all): "
        "something else encrypts it",
    )
    options = parser.parse_args(arguments)
    if complaint := _complaint(options):
        parser.error(complaint)
    json_logs.configure(LinesHandler())
    keep_freed_memory()
    raise_fd_limit()
    disable_core_dumps()
    try:
        uvloop.run(_serve(options))
    except OSError as error:
        # Ours have a text of their own, the system's name the file.
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        parser.exit(1, f"{parser.prog}: {why}\n")


def _complaint(options: Namespace) -> str:
    """What is wrong with the options. Empty: nothing."""
    for certificate, key in (("tls_cert", "tls_key"), ("target_cert", "target_key")):
        if (getattr(options, certificate) is None) != (getattr(options, key) is None):
            return "a certificate and its key go together"
    if options.target_cert and not options.target_ca:
        return "--target-cert needs --target-ca"
    for option, address, encrypted in (
        ("--rest", options.rest, options.tls_cert),
        ("--target", options.target, options.target_ca),
        ("--metrics", options.metrics, options.metrics is None),
    ):
        name = option.removeprefix("--")
        if not (encrypted or name in options.insecure or is_local(address)):
            return (
                f"{option} {address} would be plain text: give certificates, or --insecure {name}"
            )
    return ""


def _links(text: str) -> frozenset[str]:
    names = frozenset(text.split(","))
    if unknown := names - set(LINKS):
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is none of {', '.join(LINKS)}")
    return names


def _address(text: str) -> str:
    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


async def _serve(options: Namespace) -> None:
    service_tls = options.target_ca and ServiceTls(
        ca=options.target_ca, certificate=options.target_cert, key=options.target_key
    )
    tls = None
    if options.tls_cert:
        tls = ListenerTls(certificate=options.tls_cert, key=options.tls_key).context()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config, metrics, memory = EdgeConfig(), EdgeMetrics(), MemoryMonitor()
    traces = TracesOptions(service="pomogator-edge", version=VERSION)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watching(memory))
        if options.metrics:
            shown = await stack.enter_async_context(
                showing(metrics, options.metrics, VERSION, memory)
            )
            _log.info("edge.showing_metrics", extra={"address": shown})
        tracer = await stack.enter_async_context(opening_tracer(traces, os.environ))
        opening = open_channel(options.target, config, tls=service_tls)
        channel = await stack.enter_async_context(opening)
        edge = serving(
            channel,
            options.rest,
            config,
            tls=tls,
            metrics=metrics,
            tracer=tracer,
            memory=memory,
        )
        bound = await stack.enter_async_context(edge)
        follow_on_hangup(channel)
        _log.info("edge.listening", extra={"address": bound, "target": options.target})
        freeze_gc()
        await stop.wait()
        _log.info("edge.stopping")


if __name__ == "__main__":
    main()
