"""What may be said after `pomogator`, and which command it means.

Options come after the command. Those that say where things are may also be given as
variables, named like them: `--config` is `POMOGATOR_CONFIG`.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from services.cli.account_commands import (
    create_account,
    credit_account,
    report_usage,
    show_account,
    verify_ledger,
)
from services.cli.key_commands import create_key, list_keys, revoke_key, rotate_key
from services.cli.operation_commands import explain_call, reload_configuration, show_channels
from services.cli.output import (
    read_address,
    read_count,
    read_duration,
    read_links,
    read_listener,
    read_time,
    read_usd,
)
from services.cli.serve_commands import check, list_models, serve
from services.serving.options import LINKS, METRICS

Environment: TypeAlias = Mapping[str, str]
Command: TypeAlias = Callable[[Namespace, Environment], Awaitable[None]]
Commands: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"  # noqa: SLF001  It has no other name.


def parser(env: Environment) -> ArgumentParser:
    """The parser of the whole command line. What it gives has the command as `command`."""
    root = ArgumentParser(
        prog="pomogator",
        description="An LLM gateway: one chat completions API in front of every model.",
        epilog="Where things are may also be said by variables: POMOGATOR_CONFIG, _STATE, _OPS, "
        "and for serve _REST, _GRPC, _OPS_REST, _METRICS, _REFLECTION, _ONLY, _TARGET.",
    )
    root.add_argument("--version", action="version", version=version("pomogator"))
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    common = _common(env)
    asking = _asking(common, env)
    _add_serving(commands, common, env)
    _add_keys(_group(commands, "keys", "make, list, rotate and revoke keys"), asking)
    _add_accounts(_group(commands, "accounts", "open accounts and pay into them"), asking)
    models = _group(commands, "models", "what may be asked for")
    _add(models, "list", list_models, common, "list the public names")
    usage = _add(commands, "usage", report_usage, asking, "what an account has used, by model")
    usage.add_argument("--account", required=True, metavar="NAME", help="whose usage")
    usage.add_argument("--since", type=read_time, metavar="ISO", help="calls from here on")
    explain = _add(commands, "explain", explain_call, asking, "what would become of a call")
    explain.add_argument("--model", metavar="NAME", help="the public model")
    explain.add_argument("--file", type=Path, metavar="JSON", help="the request, as for REST")
    channels = _add(commands, "channels", show_channels, asking, "how the channels are doing")
    channels.add_argument("--model", metavar="NAME", help="those of one public model")
    _add(commands, "reload", reload_configuration, asking, "let the server read it anew")
    ledger = _group(commands, "ledger", "the books")
    _add(ledger, "verify", verify_ledger, asking, "check that the books are right")
    return root


def _group(commands: Commands, name: str, description: str) -> Commands:
    group = commands.add_parser(name, help=description)
    return group.add_subparsers(required=True, metavar="COMMAND")


def _add(
    commands: Commands, name: str, command: Command, common: ArgumentParser, description: str
) -> ArgumentParser:
    added = commands.add_parser(name, parents=[common], help=description)
    added.set_defaults(command=command)
    return added


def _common(env: Environment) -> ArgumentParser:
    common = ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(env["POMOGATOR_CONFIG"]) if env.get("POMOGATOR_CONFIG") else None,
        help="the configuration (default: the shipped one)",
    )
    common.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        default=Path(env.get("POMOGATOR_STATE", "var")),
        help="where the service remembers (default: ./var)",
    )
    common.add_argument(
        "--ops",
        type=read_listener,
        metavar="ADDRESS",
        default=env.get("POMOGATOR_OPS"),
        help="the operators' listener, HOST:PORT or unix:PATH (default: unix:DIR/ops.sock)",
    )
    return common


OPS_FILES = (
    ("--ops-ca", "who vouches for the operators' listener, where it speaks TLS"),
    ("--ops-cert", "the certificate to show it, where it asks for one"),
    ("--ops-key", "its private key"),
)


def _asking(common: ArgumentParser, env: Environment) -> ArgumentParser:
    """What commands have in common that may ask a server."""
    asking = ArgumentParser(add_help=False, parents=[common])
    _add_files(asking, OPS_FILES, env)
    return asking


def _add_files(added: ArgumentParser, files: Iterable[tuple[str, str]], env: Environment) -> None:
    for option, description in files:
        variable = f"POMOGATOR_{option.removeprefix('--').replace('-', '_').upper()}"
        added.add_argument(
            option,
            type=Path,
            metavar="FILE",
            default=Path(env[variable]) if env.get(variable) else None,
            help=description,
        )


def _add_serving(commands: Commands, common: ArgumentParser, env: Environment) -> None:
    added = _add(commands, "serve", serve, common, "run the service")
    added.add_argument(
        "--rest",
        type=read_address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_REST", "127.0.0.1:8080"),
        help="the REST edge (default: %(default)s)",
    )
    added.add_argument(
        "--grpc",
        type=read_listener,
        metavar="ADDRESS",
        default=env.get("POMOGATOR_GRPC", "127.0.0.1:50051"),
        help="the gRPC service, HOST:PORT or unix:PATH (default: %(default)s)",
    )
    added.add_argument(
        "--ops-rest",
        type=read_address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_OPS_REST", ""),
        help="REST for operators, who then need POMOGATOR_OPS_TOKEN (default: none)",
    )
    added.add_argument(
        "--metrics",
        type=read_address,
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_METRICS"),
        help=f"Prometheus' metrics, or '' for none (default: {METRICS}, if that is free)",
    )
    added.add_argument(
        "--watch-config",
        action="store_true",
        default=env.get("POMOGATOR_WATCH_CONFIG", "") not in ("", "0"),
        help="read the configuration anew whenever its file changes",
    )
    added.add_argument(
        "--reflection",
        action="store_true",
        default=env.get("POMOGATOR_REFLECTION", "") not in ("", "0"),
        help="let gRPC reflection tell what there is",
    )
    added.add_argument(
        "--drain-timeout",
        type=read_count,
        metavar="SECONDS",
        default=env.get("POMOGATOR_DRAIN_TIMEOUT", "600"),
        help="how long running calls may go on once it is told to stop (default: %(default)s)",
    )
    added.add_argument(
        "--shutdown-delay",
        type=read_count,
        metavar="SECONDS",
        default=env.get("POMOGATOR_SHUTDOWN_DELAY", "1"),
        help="how long it still takes calls before that, though it says that it is not ready "
        "(default: %(default)s)",
    )
    added.add_argument(
        "--only",
        choices=("rest", "grpc"),
        default=env.get("POMOGATOR_ONLY"),
        help="run only the edge, or only the service",
    )
    added.add_argument(
        "--target",
        metavar="TARGET",
        default=env.get("POMOGATOR_TARGET"),
        help="with --only rest: where the service is, as gRPC names it",
    )
    _add_tls(added, env)
    _add(commands, "check", check, common, "check a configuration")


TLS_FILES = (
    ("--tls-cert", "the certificate that listeners on TCP present, in PEM (default: plain text)"),
    ("--tls-key", "its private key"),
    ("--tls-client-ca", "who vouches for gRPC's callers and operators: they need a certificate"),
    ("--target-ca", "with --only rest: who vouches for the service (default: plain text)"),
    ("--target-cert", "with --only rest: the certificate that the edge presents to it"),
    ("--target-key", "its private key"),
)


def _add_tls(added: ArgumentParser, env: Environment) -> None:
    _add_files(added, TLS_FILES, env)
    added.add_argument(
        "--insecure",
        nargs="?",
        type=read_links,
        const=frozenset(LINKS),
        metavar="A,B",
        default=_insecure(env.get("POMOGATOR_INSECURE", "")),
        help=f"what may be plain text beyond this machine, of {', '.join(LINKS)} (alone: all): "
        "something else encrypts it",
    )


def _insecure(variable: str) -> str | frozenset[str]:
    """What the variable means: `1` is the option alone, and names are the parser's to read."""
    return {"": frozenset(), "0": frozenset(), "1": frozenset(LINKS)}.get(variable, variable)


def _add_keys(keys: Commands, common: ArgumentParser) -> None:
    create = _add(keys, "create", create_key, common, "make a key; the last line is it")
    create.add_argument("--account", required=True, metavar="NAME", help="who pays; made if new")
    create.add_argument("--name", default="", metavar="TEXT", help="what the key is for")
    create.add_argument("--models", default="", metavar="A,B", help="only these public models")
    create.add_argument("--rpm", type=read_count, metavar="N", help="requests a minute")
    create.add_argument("--tpm", type=read_count, metavar="N", help="tokens a minute")
    create.add_argument(
        "--concurrency", type=read_count, metavar="N", help="calls at the same time"
    )
    create.add_argument(
        "--monthly-usd", type=read_usd, metavar="X", help="what it may spend in a month"
    )
    create.add_argument("--expires", type=read_time, metavar="ISO", help="when it ends")
    create.add_argument(
        "--strict", action="store_true", help="refuse parameters that a model cannot honour"
    )
    _add(keys, "list", list_keys, common, "list all keys, oldest first")
    rotate = _add(
        keys, "rotate", rotate_key, common, "give a key another secret; the last line is it"
    )
    rotate.add_argument("id", metavar="ID", help="such as key-4f1d…")
    rotate.add_argument(
        "--overlap",
        type=read_duration,
        default="24h",
        metavar="TIME",
        help="how long the old secret stays valid: 0, 30m, 24h, 7d … (default: %(default)s)",
    )
    revoke = _add(keys, "revoke", revoke_key, common, "revoke a key")
    revoke.add_argument("id", metavar="ID", help="such as key-4f1d…")


def _add_accounts(accounts: Commands, common: ArgumentParser) -> None:
    create = _add(accounts, "create", create_account, common, "open an account")
    create.add_argument("name", metavar="NAME")
    create.add_argument(
        "--credit", type=read_usd, default=0, metavar="USD", help="what is paid in at once"
    )
    create.add_argument(
        "--unlimited", action="store_true", help="it may spend what it does not have"
    )
    credit = _add(accounts, "credit", credit_account, common, "pay into an account")
    credit.add_argument("name", metavar="NAME")
    credit.add_argument("usd", type=read_usd, metavar="USD", help="negative takes out")
    credit.add_argument(
        "--request-id",
        required=True,
        metavar="ID",
        help="your name for the payment; the same one pays once",
    )
    show = _add(accounts, "show", show_account, common, "what is known about an account")
    show.add_argument("name", metavar="NAME")
