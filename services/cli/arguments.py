"""The command line of `pomogator`: commands, their options and their help.

Options come after the command. Those that say where things are may also be given as variables:
`--config` is POMOGATOR_CONFIG.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from gateway.arguments import add_file
from services.cli.account_commands import (
    create_account,
    credit_account,
    list_accounts,
    report_usage,
    show_account,
    verify_ledger,
)
from services.cli.audit_commands import list_audit_entries
from services.cli.channel_commands import (
    disable_channel,
    enable_channel,
    list_channels,
    test_channel,
)
from services.cli.demo_command import demo
from services.cli.key_arguments import add_key_change_arguments, add_new_key_arguments
from services.cli.key_commands import create_key, list_keys, revoke_key, rotate_key, update_key
from services.cli.live_commands import abort_call, list_live_calls
from services.cli.operation_arguments import (
    add_abort_arguments,
    add_audit_arguments,
    add_disable_arguments,
    add_live_arguments,
    add_test_arguments,
)
from services.cli.operation_commands import explain_call, reload_configuration
from services.cli.output import read_duration, read_listener, read_time, read_usd, read_visible
from services.cli.serve_arguments import EXAMPLES, add_demo_arguments, add_serve_arguments
from services.cli.serve_commands import check, list_models, serve
from services.serving.first_key import STATE

Environment: TypeAlias = Mapping[str, str]
Command: TypeAlias = Callable[[Namespace, Environment], Awaitable[None]]
Commands: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"  # noqa: SLF001  It has no other name.

FIRST_STEPS = """\
examples:
  pomogator demo
  pomogator serve
  pomogator accounts create acme --credit 20
  pomogator keys create --account acme

Run `pomogator COMMAND --help` for the options of a command. --config, --state, --ops and --operator
may also be set by the variables POMOGATOR_CONFIG, POMOGATOR_STATE, POMOGATOR_OPS and
POMOGATOR_OPERATOR."""


def parser(env: Environment) -> ArgumentParser:
    """The parser of the whole command line. Its result has the command as `command`."""
    root = ArgumentParser(
        prog="pomogator",
        description="An LLM gateway: the APIs of OpenAI and Anthropic in front of every model.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=version("pomogator"))
    commands = root.add_subparsers(required=True, metavar="COMMAND", title="commands")
    common = _common(env)
    operator = _operator(common, env)
    alone = ArgumentParser(add_help=False)
    shown = _add(commands, "demo", demo, alone, "try the gateway with a model on this machine")
    add_demo_arguments(shown, env)
    added = _add(commands, "serve", serve, common, "run the gateway", EXAMPLES)
    add_serve_arguments(added, env)
    checked = _add(commands, "check", check, common, "check a configuration without running it")
    checked.add_argument(
        "--connect",
        action="store_true",
        help="also connect to every store and, without sending a request, to every channel",
    )
    _add_keys(
        _group(commands, "keys", "create, list, change, rotate and revoke API keys"), operator
    )
    _add_accounts(_group(commands, "accounts", "create, credit, list and show accounts"), operator)
    models = _group(commands, "models", "show the models on offer")
    _add(models, "list", list_models, common, "list the public model names of a configuration")
    _add_reports(commands, operator)
    _add_operations(commands, operator)
    ledger = _group(commands, "ledger", "audit the ledger")
    _add(ledger, "verify", verify_ledger, operator, "check that every account balances")
    return root


def _group(commands: Commands, name: str, description: str) -> Commands:
    group = commands.add_parser(name, help=description, description=_sentence(description))
    return group.add_subparsers(required=True, metavar="COMMAND", title="commands")


def _add(
    commands: Commands,
    name: str,
    command: Command,
    common: ArgumentParser,
    description: str,
    examples: str = "",
) -> ArgumentParser:
    added = commands.add_parser(
        name,
        parents=[common],
        help=description,
        description=_sentence(description),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=command)
    return added


def _sentence(description: str) -> str:
    return f"{description[0].upper()}{description[1:]}."


def _common(env: Environment) -> ArgumentParser:
    """Options of every command."""
    common = ArgumentParser(add_help=False)
    add_file(common, "--config", "configuration in TOML (default: the shipped one)", env)
    common.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        default=Path(env.get("POMOGATOR_STATE", STATE)),
        help="directory of the database and secrets (default: ./var)",
    )
    common.add_argument(
        "--ops",
        type=read_listener,
        metavar="ADDRESS",
        default=env.get("POMOGATOR_OPS"),
        help="address of the operators' gRPC services, HOST:PORT or unix:PATH "
        "(default: unix:DIR/ops.sock)",
    )
    return common


def _operator(common: ArgumentParser, env: Environment) -> ArgumentParser:
    """Options of commands that call the operators' services."""
    operator = ArgumentParser(add_help=False, parents=[common])
    add_file(operator, "--ops-ca", "CA of the --ops listener, where it speaks TLS", env)
    add_file(operator, "--ops-cert", "certificate to present to it, where it asks for one", env)
    add_file(operator, "--ops-key", "private key of --ops-cert", env)
    operator.add_argument(
        "--operator",
        type=read_visible,
        metavar="NAME",
        default=env.get("POMOGATOR_OPERATOR", ""),
        help="name for the audit log of the person who makes a change (default: no name)",
    )
    return operator


def _add_reports(commands: Commands, operator: ArgumentParser) -> None:
    usage = _add(
        commands, "usage", report_usage, operator, "show what an account has used, by model"
    )
    usage.add_argument("--account", required=True, metavar="NAME", help="account to report on")
    usage.add_argument(
        "--since", type=read_time, metavar="ISO", help="count calls from this time on"
    )
    explain = _add(
        commands,
        "explain",
        explain_call,
        operator,
        "show where a request would be sent, as what, and its hold; send nothing",
        "examples:\n  pomogator explain --model anthropic/claude-sonnet-5\n"
        "  pomogator explain --file request.json",
    )
    explain.add_argument("--model", metavar="NAME", help="public model to ask for")
    explain.add_argument(
        "--file",
        type=Path,
        metavar="JSON",
        help="body of POST /v1/chat/completions or /v1/embeddings",
    )
    explain.add_argument(
        "--session", metavar="ID", help="session of a completion, as `x-session-id` names it"
    )
    explain.add_argument("--account", metavar="NAME", help="account of the session")
    _add(
        commands,
        "reload",
        reload_configuration,
        operator,
        "make the running server reload its configuration",
    )


def _add_operations(commands: Commands, operator: ArgumentParser) -> None:
    channels = _group(commands, "channels", "list, disable, enable and test the server's channels")
    listing = _add(channels, "list", list_channels, operator, "show the health of the channels")
    listing.add_argument("--model", metavar="NAME", help="show only channels of this public model")
    add_disable_arguments(
        _add(channels, "disable", disable_channel, operator, "keep calls away from a channel")
    )
    enable = _add(channels, "enable", enable_channel, operator, "let calls go to a channel again")
    enable.add_argument("name", metavar="NAME", help="name of the channel")
    description = "send one small request to a channel, which no account pays for"
    add_test_arguments(_add(channels, "test", test_channel, operator, description))
    calls = _group(commands, "calls", "list and abort the calls in flight")
    live = _add(calls, "live", list_live_calls, operator, "list the calls in flight, oldest first")
    add_live_arguments(live)
    add_abort_arguments(_add(calls, "abort", abort_call, operator, "end a call in flight"))
    audit = _group(commands, "audit", "show the audit log")
    description = "list the changes by operators and tenants, newest first"
    add_audit_arguments(_add(audit, "list", list_audit_entries, operator, description))


def _add_keys(keys: Commands, operator: ArgumentParser) -> None:
    create = _add(
        keys,
        "create",
        create_key,
        operator,
        "create an API key and print it on the last line",
        "example:\n  pomogator keys create --account acme --rpm 60 --monthly-usd 100",
    )
    add_new_key_arguments(create)
    listing = _add(keys, "list", list_keys, operator, "list API keys, oldest first")
    listing.add_argument("--account", default="", metavar="NAME", help="only keys of this account")
    update = _add(
        keys,
        "update",
        update_key,
        operator,
        "change an API key; its secret stays",
        "examples:\n  pomogator keys update key-4f1d… --rpm 120 --expires none\n"
        "  pomogator keys update key-4f1d… --models all --no-strict",
    )
    add_key_change_arguments(update)
    rotate = _add(
        keys, "rotate", rotate_key, operator, "give a key a new secret, printed on the last line"
    )
    rotate.add_argument("id", metavar="ID", help="ID of the key, such as key-4f1d…")
    rotate.add_argument(
        "--overlap",
        type=read_duration,
        default="24h",
        metavar="TIME",
        help="keep the old secret valid this long: 0, 30m, 24h, 7d … (default: %(default)s)",
    )
    revoke = _add(keys, "revoke", revoke_key, operator, "revoke an API key")
    revoke.add_argument("id", metavar="ID", help="ID of the key, such as key-4f1d…")


def _add_accounts(accounts: Commands, operator: ArgumentParser) -> None:
    create = _add(
        accounts,
        "create",
        create_account,
        operator,
        "create an account",
        "example:\n  pomogator accounts create acme --credit 20",
    )
    create.add_argument("name", metavar="NAME", help="name of the account")
    create.add_argument(
        "--credit", type=read_usd, default=0, metavar="USD", help="initial balance (default: 0)"
    )
    create.add_argument(
        "--unlimited", action="store_true", help="allow spending beyond the balance"
    )
    credit = _add(
        accounts,
        "credit",
        credit_account,
        operator,
        "add to the balance of an account",
        "example:\n  pomogator accounts credit acme 50 --request-id invoice-17",
    )
    credit.add_argument("name", metavar="NAME", help="name of the account")
    credit.add_argument("usd", type=read_usd, metavar="USD", help="amount; negative to withdraw")
    credit.add_argument(
        "--request-id",
        required=True,
        metavar="ID",
        help="your ID of the payment; the same ID is credited once",
    )
    _add(accounts, "list", list_accounts, operator, "list all accounts, oldest first")
    show = _add(accounts, "show", show_account, operator, "show the balance of an account")
    show.add_argument("name", metavar="NAME", help="name of the account")
