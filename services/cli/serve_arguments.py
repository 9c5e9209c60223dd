"""Flags of `pomogator serve` and `demo`. Those of the edge are `gateway.arguments`."""

from __future__ import annotations

from argparse import ArgumentParser

from gateway.arguments import (
    Environment,
    add_file,
    add_listeners,
    add_shutdown,
    add_target,
    add_tls,
    optional_address,
    worker_count,
)
from services.cli.output import read_listener
from services.serving.options import LINKS

EXAMPLES = """\
examples:
  pomogator serve
  pomogator serve --config pomogator.toml --watch-config
  pomogator serve --workers 3
  pomogator serve --only grpc --grpc unix:/run/pomogator/grpc.sock
  pomogator serve --only rest --target unix:/run/pomogator/grpc.sock

Each option may be given as a variable instead, such as POMOGATOR_REST for --rest.
SIGTERM and SIGINT drain and stop the server, SIGHUP reloads its configuration."""


def add_serve_arguments(parser: ArgumentParser, env: Environment) -> None:
    """Add all flags of `serve` but those that other commands have, too."""
    parser.add_argument(
        "--only",
        choices=("rest", "grpc"),
        default=env.get("POMOGATOR_ONLY"),
        help="run only the REST edge, or only the gRPC service (default: both in one process)",
    )
    add_demo_arguments(parser, env)
    parser.add_argument(
        "--workers",
        type=worker_count,
        metavar="N",
        default=env.get("POMOGATOR_WORKERS", "0"),
        help="serve the REST API by N edges in processes of their own, on one port; their metrics "
        "are at the ports after that of --metrics (default: one edge in the service's process)",
    )
    parser.add_argument(
        "--ops-rest",
        type=optional_address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_OPS_REST", ""),
        help="address of the operators' REST API, which needs POMOGATOR_OPS_TOKEN (default: none)",
    )
    _add_switch(parser, "--watch-config", "reload the configuration whenever its file changes", env)
    _add_switch(parser, "--reflection", "serve gRPC reflection", env)
    _add_switch(
        parser,
        "--print-first-key",
        "at the first start, make an unlimited key and print it, also where standard output is no "
        "terminal but perhaps a log",
        env,
    )
    add_shutdown(parser, env)
    add_tls(parser, env, LINKS)
    description = "CA of gRPC callers and operators on TCP, who then need a certificate"
    add_file(parser, "--tls-client-ca", description, env)
    add_target(parser, env, default=None, when="with --only rest: ")


def add_demo_arguments(parser: ArgumentParser, env: Environment) -> None:
    """Add the addresses of the listeners, all that `demo` has."""
    add_listeners(parser, env)
    parser.add_argument(
        "--console",
        type=optional_address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_CONSOLE", ""),
        help="address of the console, for a browser (default: none)",
    )
    parser.add_argument(
        "--grpc",
        type=read_listener,
        metavar="ADDRESS",
        default=env.get("POMOGATOR_GRPC", "127.0.0.1:50051"),
        help="address of the gRPC services, HOST:PORT or unix:PATH (default: %(default)s)",
    )


def _add_switch(parser: ArgumentParser, option: str, description: str, env: Environment) -> None:
    variable = f"POMOGATOR_{option.removeprefix('--').replace('-', '_').upper()}"
    default = env.get(variable, "") not in ("", "0")
    parser.add_argument(option, action="store_true", default=default, help=description)
