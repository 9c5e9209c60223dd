"""Runs a command."""

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
from services.config import ConfigError
from services.errors import Failure
from services.storage.base import StateError

SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    """Runs the command and returns its exit code. What went wrong is one line on stderr."""
    arguments = parser(env).parse_args(argv)
    try:
        uvloop.run(_run(arguments, env))
    except (ConfigError, StateError, CommandError) as error:
        return _complain(str(error))
    except Failure as failure:
        return _complain(failure.message)
    except grpc.aio.AioRpcError as error:
        return _complain(_message(error, arguments))
    except OSError as error:
        # Ours have a text of their own, the system's name the file.
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return 130
    return 0


async def _run(arguments: Namespace, env: Mapping[str, str]) -> None:
    command: Command = arguments.command
    await command(arguments, env)


def _message(error: grpc.aio.AioRpcError, arguments: Namespace) -> str:
    if error.code() in SILENT:
        return f"{arguments.state} is in use, but no server answers at {ops_address(arguments)}"
    return error.details() or error.code().name


def _complain(message: str) -> int:
    print(f"pomogator: {message}", file=sys.stderr)  # noqa: T201  It is for people.
    return 1
