"""Options of the commands about channels, calls in flight and the audit log."""

from __future__ import annotations

from argparse import ArgumentParser

from services.cli.output import read_count, read_duration, read_time

_REASON = "for other operators: it is in the audit log"


def add_disable_arguments(disable: ArgumentParser) -> None:
    """Add the options of `channels disable`."""
    disable.add_argument("name", metavar="NAME", help="name of the channel")
    disable.add_argument("--reason", required=True, metavar="TEXT", help=_REASON)
    disable.add_argument(
        "--until", type=read_time, metavar="ISO", help="enable it again at this time"
    )


def add_test_arguments(test: ArgumentParser) -> None:
    """Add the options of `channels test`."""
    test.add_argument("name", metavar="NAME", help="name of the channel")
    test.add_argument("--model", metavar="NAME", help="public model (default: the channel's first)")
    test.add_argument(
        "--key", type=read_count, default=0, metavar="N", help="index of the key (default: 0)"
    )
    test.add_argument(
        "--timeout",
        type=read_duration,
        default="30s",
        metavar="TIME",
        help="end the test after this time (default: %(default)s)",
    )


def add_live_arguments(live: ArgumentParser) -> None:
    """Add the options of `calls live`."""
    for name, what in {
        "--account": ("NAME", "account"),
        "--key": ("ID", "key"),
        "--model": ("NAME", "public model"),
        "--channel": ("NAME", "channel"),
    }.items():
        live.add_argument(
            name, default="", metavar=what[0], help=f"show only calls of this {what[1]}"
        )


def add_abort_arguments(abort: ArgumentParser) -> None:
    """Add the options of `calls abort`."""
    abort.add_argument("id", metavar="ID", help="ID of the call, as `calls live` shows it")
    abort.add_argument("--reason", required=True, metavar="TEXT", help=_REASON)


def add_audit_arguments(listing: ArgumentParser) -> None:
    """Add the options of `audit list`."""
    listing.add_argument("--account", default="", metavar="NAME", help="only this account")
    listing.add_argument(
        "--actor", default="", metavar="NAME", help="only this key, by its ID, or this operator"
    )
    listing.add_argument(
        "--limit", type=read_count, default=100, metavar="N",
        help="print at most N entries (default: %(default)s)",
    )  # fmt: skip
