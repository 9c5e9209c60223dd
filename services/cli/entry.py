"""Entry of the command `pomogator`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence

import grpc
import uvloop

from services.cli.arguments import Command, parser
from services.cli.operator_client import ops_address
from services.cli.output import CommandError
from services.common.process_settings import open_standard_descriptors
from services.config import ConfigError
from services.errors import Failure
from services.storage.base import StateError

NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

DETAILS = "grpc-status-details-bin"
"""Metadata of the errors that a server gives as an answer, such as that its database is away."""


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    """Run a command and return its exit code. A failure is one line on stderr."""
    open_standard_descriptors()
    arguments = parser(env).parse_args(argv)
    try:
        uvloop.run(_run(arguments, env))
    except (ConfigError, StateError, CommandError) as error:
        return _print_failure(str(error))
    except Failure as failure:
        return _print_failure(failure.message)
    except grpc.aio.AioRpcError as error:
        return _print_failure(_message(error, arguments))
    except OSError as error:
        # Errors of this package have a message, those of the system a file name.
        return _print_failure(
            f"{error.filename}: {error.strerror}" if error.filename else str(error)
        )
    except KeyboardInterrupt:
        return 130
    return 0


async def _run(arguments: Namespace, env: Mapping[str, str]) -> None:
    command: Command = arguments.command
    await command(arguments, env)


def _message(error: grpc.aio.AioRpcError, arguments: Namespace) -> str:
    answered = any(key == DETAILS for key, _ in error.trailing_metadata() or ())
    if error.code() in NO_ANSWER and not answered:
        return f"{arguments.state} is in use, but no server answers at {ops_address(arguments)}"
    return error.details() or error.code().name


def _print_failure(message: str) -> int:
    print(f"pomogator: {message}", file=sys.stderr)  # noqa: T201  Commands print.
    return 1
