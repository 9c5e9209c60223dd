"""Flags of an edge, for `python -m gateway` and `pomogator serve`.

Each flag may be given as a variable instead: `--rest` is POMOGATOR_REST.
"""

from __future__ import annotations

from argparse import (
    SUPPRESS,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from gateway.edge import METRICS, EdgeOptions
from services.common.addresses import split_address
from services.common.config_tables import ConfigError
from services.common.tls import ListenerTls, TargetTls

Environment: TypeAlias = Mapping[str, str]

LINKS = ("rest", "target", "metrics")
"""Links that can be plain text, by option."""

TARGET = "127.0.0.1:50051"

SECONDS_MAX = 10**9
WORKERS_MAX = 256

EXAMPLES = """\
examples:
  python -m gateway --target unix:/run/pomogator/grpc.sock
  python -m gateway --rest 0.0.0.0:8080 --tls-cert edge.crt --tls-key edge.key \\
      --target dns:///pomogator-grpc:50051 --target-ca ca.crt

Each option may be given as a variable instead, such as POMOGATOR_REST for --rest.
SIGTERM and SIGINT drain and stop the edge, SIGHUP makes it reconnect to the service."""


def parser(env: Environment) -> ArgumentParser:
    """The command line of an edge that runs alone."""
    root = ArgumentParser(
        prog="python -m gateway",
        usage="python -m gateway [OPTION]...",
        description="Serve the REST API in front of a gRPC service in another process.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=version("pomogator"))
    add_file(root, "--config", "configuration; an edge reads [bounds], [edge] and [traces]", env)
    add_listeners(root, env)
    add_target(root, env, default=TARGET)
    add_shutdown(root, env)
    add_tls(root, env, LINKS)
    # For `pomogator serve --workers` alone.
    root.add_argument("--worker", action="store_true", help=SUPPRESS)
    return root


def edge_options(arguments: Namespace, target: str) -> EdgeOptions:
    """Options of an edge from its arguments. Raises ConfigError where half of a pair is missing."""
    certificate, key = arguments.tls_cert, arguments.tls_key
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    return EdgeOptions(
        config_path=arguments.config,
        rest=arguments.rest,
        target=target,
        metrics=arguments.metrics,
        shutdown_delay_s=arguments.shutdown_delay,
        drain_timeout_s=arguments.drain_timeout,
        tls=ListenerTls(certificate=certificate, key=key) if certificate else None,
        target_tls=_target_tls(arguments),
        insecure=arguments.insecure,
        is_worker=getattr(arguments, "worker", False),
    )


def add_listeners(parser: ArgumentParser, env: Environment) -> None:
    """Add `--rest` and `--metrics`."""
    parser.add_argument(
        "--rest",
        type=address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_REST", "127.0.0.1:8080"),
        help="address of the REST API (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics",
        type=optional_address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_METRICS"),
        help=f"address of the Prometheus metrics page, '' for none (default: {METRICS}, if free)",
    )


def add_target(
    parser: ArgumentParser, env: Environment, default: str | None, when: str = ""
) -> None:
    """Add `--target` and its certificates. `when` says in the help when they apply."""
    parser.add_argument(
        "--target",
        metavar="TARGET",
        default=env.get("POMOGATOR_TARGET", default),
        help=f"{when}gRPC service to call: HOST:PORT, unix:PATH or dns:///NAME:PORT "
        f"(default: {default or 'as --grpc'})",
    )
    add_file(parser, "--target-ca", f"{when}CA of the service's certificate, in PEM", env)
    add_file(parser, "--target-cert", f"{when}certificate to present to the service", env)
    add_file(parser, "--target-key", "private key of --target-cert", env)


def add_shutdown(parser: ArgumentParser, env: Environment) -> None:
    """Add `--shutdown-delay` and `--drain-timeout`."""
    parser.add_argument(
        "--shutdown-delay",
        type=seconds,
        metavar="SECONDS",
        default=env.get("POMOGATOR_SHUTDOWN_DELAY", "1"),
        help="keep accepting calls this long after readiness turns false (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=seconds,
        metavar="SECONDS",
        default=env.get("POMOGATOR_DRAIN_TIMEOUT", "600"),
        help="then let in-flight calls end for at most this long (default: %(default)s)",
    )


def add_tls(parser: ArgumentParser, env: Environment, links: tuple[str, ...]) -> None:
    """Add `--tls-cert`, `--tls-key` and `--insecure`; `links` are what the last may name."""

    def names(text: str) -> frozenset[str]:
        return link_names(text, links)

    add_file(parser, "--tls-cert", "certificate chain of the TCP listeners, in PEM", env)
    add_file(parser, "--tls-key", "private key of --tls-cert", env)
    parser.add_argument(
        "--insecure",
        nargs="?",
        type=names,
        const=frozenset(links),
        metavar="LINK,...",
        default=_insecure(env.get("POMOGATOR_INSECURE", ""), links),
        help="allow plain text beyond this machine, where something else encrypts it, on these of "
        f"{', '.join(links)} (without a value: all)",
    )


def add_file(parser: ArgumentParser, option: str, description: str, env: Environment) -> None:
    """Add an option that names a file."""
    variable = f"POMOGATOR_{option.removeprefix('--').replace('-', '_').upper()}"
    parser.add_argument(
        option,
        type=Path,
        metavar="FILE",
        default=Path(env[variable]) if env.get(variable) else None,
        help=description,
    )


def address(text: str) -> str:
    """`HOST:PORT`, an IPv6 address in brackets."""
    try:
        split_address(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def optional_address(text: str) -> str:
    """`HOST:PORT`, or empty for none."""
    return text and address(text)


def seconds(text: str) -> int:
    """A whole number of seconds."""
    if not text.isdecimal() or int(text) > SECONDS_MAX:
        raise ArgumentTypeError(f"{text}: not a whole number of seconds")
    return int(text)


def worker_count(text: str) -> int:
    """A number of worker processes."""
    if not text.isdecimal() or int(text) > WORKERS_MAX:
        raise ArgumentTypeError(f"{text}: not a whole number up to {WORKERS_MAX}")
    return int(text)


def link_names(text: str, links: Iterable[str]) -> frozenset[str]:
    """Links from `rest,metrics` or the like."""
    names = frozenset(text.split(",")) if text else frozenset()
    if unknown := names - set(links):
        raise ArgumentTypeError(f"{min(unknown)!r} is not one of {', '.join(links)}")
    return names


def _insecure(variable: str, links: Iterable[str]) -> str | frozenset[str]:
    """The default that POMOGATOR_INSECURE gives: `1` is the flag alone, `0` no flag."""
    return {"": frozenset(), "0": frozenset(), "1": frozenset(links)}.get(variable, variable)


def _target_tls(arguments: Namespace) -> TargetTls | None:
    ca, certificate, key = arguments.target_ca, arguments.target_cert, arguments.target_key
    if (certificate is None) != (key is None):
        raise ConfigError("--target-cert and --target-key go together")
    if ca is None and certificate is not None:
        raise ConfigError("--target-cert needs --target-ca")
    return TargetTls(ca=ca, certificate=certificate, key=key) if ca else None
