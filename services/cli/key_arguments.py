"""Options of the commands that create and change API keys."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from services.cli.output import CLEARED, or_none, read_count, read_names, read_time, read_usd


class Limit(NamedTuple):
    """Option for a limit of a key."""

    read: Callable[[str], Any]
    metavar: str
    help: str


LIMITS: Mapping[str, Limit] = {
    "--rpm": Limit(read_count, "N", "allow N requests a minute"),
    "--tpm": Limit(read_count, "N", "allow N tokens a minute"),
    "--concurrency": Limit(read_count, "N", "allow N in-flight calls"),
    "--monthly-usd": Limit(read_usd, "USD", "allow this spending a month"),
    "--expires": Limit(read_time, "ISO", "expire at this time"),
}
SWITCHES: Mapping[str, str] = {
    "--strict": "refuse parameters that a model does not support",
    "--text-content": "answer with strings as content, also for -thinking names",
    "--thinking-names-hidden": "list the models without their -thinking names",
    "--administers-account": "let the key make, change and revoke the keys of its account",
}
"""Settings that are on or off, with their help."""


def add_new_key_arguments(create: ArgumentParser) -> None:
    """Add the options of `keys create`."""
    create.add_argument(
        "--account", required=True, metavar="NAME", help="account that pays; created if missing"
    )
    create.add_argument("--name", default="", metavar="TEXT", help="note on the key's purpose")
    create.add_argument(
        "--models",
        type=read_names,
        default=[],
        metavar="A,B",
        help="allow only these public models",
    )
    for option, limit in LIMITS.items():
        create.add_argument(option, type=limit.read, metavar=limit.metavar, help=limit.help)
    for option, meaning in SWITCHES.items():
        create.add_argument(option, action="store_true", help=meaning)
    create.add_argument(
        "--request-id",
        default="",
        metavar="ID",
        help="your ID of this request; the same ID creates one key",
    )


def add_key_change_arguments(update: ArgumentParser) -> None:
    """Add the options of `keys update`. An option that is left out changes nothing."""
    update.add_argument("id", metavar="ID", help="ID of the key, such as key-4f1d…")
    update.add_argument("--name", metavar="TEXT", help="note on the key's purpose")
    update.add_argument(
        "--models",
        type=_read_models,
        metavar="A,B",
        help="allow only these public models; all: allow every model",
    )
    for option, limit in LIMITS.items():
        update.add_argument(
            option,
            type=or_none(limit.read),
            metavar=limit.metavar,
            help=f"{limit.help}; none: no such limit",
        )
    for option, meaning in SWITCHES.items():
        update.add_argument(option, action=BooleanOptionalAction, help=meaning)


def _read_models(text: str) -> list[str] | object:
    return CLEARED if text == "all" else read_names(text)
