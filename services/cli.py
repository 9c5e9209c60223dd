"""The command `pomogator`: reads its arguments, asks the right one, prints the answer.

What went wrong is one line on stderr. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc

from services.accounts.operators import StateAddress, operators_channel
from services.clock import SystemClock
from services.config import ConfigError, load
from services.errors import Failure
from services.options import ServeOptions
from services.routing.catalog import Catalog
from services.serve import run
from services.storage.base import StateError

Arguments = argparse.Namespace

ANSWER_TIMEOUT_S = 10.0
"""How long a server that runs may take to answer the operator."""


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    """Runs the command and returns its exit code."""
    arguments = _parser(env).parse_args(argv)
    command: Callable[[Arguments, Mapping[str, str]], Awaitable[None]] = arguments.command
    try:
        asyncio.run(_awaited(command(arguments, env)))
    except (ConfigError, StateError) as error:
        return _complain(str(error))
    except Failure as failure:
        return _complain(failure.message)
    except grpc.aio.AioRpcError as error:
        return _complain(_rpc_message(error, arguments))
    except OSError as error:
        return _complain(f"{error.filename or 'network'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130
    return 0


async def _awaited(command: Awaitable[None]) -> None:
    await command


async def _serve(arguments: Arguments, _env: Mapping[str, str]) -> None:
    await run(
        ServeOptions(
            config_path=arguments.config,
            state=arguments.state,
            rest=arguments.rest,
            grpc=arguments.grpc,
            ops=_ops(arguments),
            only=arguments.only,
            target=arguments.target,
        )
    )


async def _check(arguments: Arguments, env: Mapping[str, str]) -> None:
    config = load(arguments.config, env)
    models = Catalog(config, create_time_s=0).routes
    _print(f"OK: {len(config.channels)} channels, {len(models)} models")


async def _list_models(arguments: Arguments, env: Mapping[str, str]) -> None:
    catalog = Catalog(load(arguments.config, env), create_time_s=0)
    for route in catalog.routes:
        _print(route.model)


async def _create_key(arguments: Arguments, env: Mapping[str, str]) -> None:
    async with _key_stub(arguments, env) as stub:
        answer = await stub.CreateKey(
            keys.CreateKeyRequest(account=arguments.account, display_name=arguments.name),
            timeout=ANSWER_TIMEOUT_S,
            wait_for_ready=True,
        )
    _print(f"{answer.key.key_id} for account {answer.key.account}. It is shown only now:")
    _print(answer.secret)


async def _list_keys(arguments: Arguments, env: Mapping[str, str]) -> None:
    async with _key_stub(arguments, env) as stub:
        rows = [_key_row(key) async for key in _all_keys(stub)]
    _print_table(("ID", "ACCOUNT", "KEY", "CREATED", "STATUS", "NAME"), rows)


async def _revoke_key(arguments: Arguments, env: Mapping[str, str]) -> None:
    async with _key_stub(arguments, env) as stub:
        answer = await stub.RevokeKey(
            keys.RevokeKeyRequest(key_id=arguments.id),
            timeout=ANSWER_TIMEOUT_S,
            wait_for_ready=True,
        )
    _print(f"{answer.key.key_id} is revoked since {_date(answer.key.revoke_time)}")


async def _all_keys(stub: keys_grpc.KeyServiceStub) -> AsyncIterator[keys.Key]:
    request = keys.ListKeysRequest(page_size=1000)
    while True:
        answer = await stub.ListKeys(request, timeout=ANSWER_TIMEOUT_S, wait_for_ready=True)
        for key in answer.keys:
            yield key
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


@asynccontextmanager
async def _key_stub(
    arguments: Arguments, env: Mapping[str, str]
) -> AsyncIterator[keys_grpc.KeyServiceStub]:
    config = load(arguments.config, env)
    address = StateAddress(
        state=arguments.state, database_url=config.state.database_url.reveal(), ops=_ops(arguments)
    )
    async with operators_channel(address, env, SystemClock()) as channel:
        yield keys_grpc.KeyServiceStub(channel)


def _key_row(key: keys.Key) -> tuple[str, ...]:
    if key.HasField("revoke_time"):
        status = f"revoked {_date(key.revoke_time)}"
    elif key.scope.HasField("expire_time"):
        status = f"until {_date(key.scope.expire_time)}"
    else:
        status = "valid"
    created = _date(key.create_time)
    return key.key_id, key.account, f"{key.prefix}…", created, status, key.display_name


def _ops(arguments: Arguments) -> str:
    ops: str = arguments.ops or f"unix:{arguments.state / 'ops.sock'}"
    return ops


def _date(timestamp: Timestamp) -> str:
    return datetime.fromtimestamp(timestamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        _print("  ".join(cells).rstrip())


def _print(line: str) -> None:
    print(line)  # noqa: T201  It is what a command is for.


def _complain(message: str) -> int:
    print(f"pomogator: {message}", file=sys.stderr)  # noqa: T201  The same.
    return 1


def _rpc_message(error: grpc.aio.AioRpcError, arguments: Arguments) -> str:
    silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if error.code() in silent:
        return f"{arguments.state} is in use, but no server answers at {_ops(arguments)}"
    return error.details() or error.code().name


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pomogator",
        description="An LLM gateway: one chat completions API in front of every model.",
        epilog="Every option may also be given as a variable, such as POMOGATOR_CONFIG.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _common(env)

    serve = commands.add_parser("serve", parents=[common], help="run the service")
    serve.set_defaults(command=_serve)
    _add_listeners(serve, env)

    check = commands.add_parser("check", parents=[common], help="check a configuration")
    check.set_defaults(command=_check)

    _add_keys(commands, common)

    models = commands.add_parser("models", help="what may be asked for")
    models_commands = models.add_subparsers(required=True, metavar="COMMAND")
    listing = models_commands.add_parser("list", parents=[common], help="list the public names")
    listing.set_defaults(command=_list_models)
    return parser


def _add_keys(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    group = commands.add_parser("keys", help="make, list and revoke keys").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = group.add_parser("create", parents=[common], help="make a key; the last line is it")
    create.add_argument("--account", required=True, metavar="NAME", help="who pays; made if new")
    create.add_argument("--name", default="", metavar="TEXT", help="what the key is for")
    create.set_defaults(command=_create_key)
    listing = group.add_parser("list", parents=[common], help="list all keys, oldest first")
    listing.set_defaults(command=_list_keys)
    revoke = group.add_parser("revoke", parents=[common], help="revoke a key")
    revoke.add_argument("id", metavar="ID", help="such as key-4f1d…")
    revoke.set_defaults(command=_revoke_key)


def _common(env: Mapping[str, str]) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    config = env.get("POMOGATOR_CONFIG")
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(config) if config else None,
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
        metavar="ADDRESS",
        default=env.get("POMOGATOR_OPS"),
        help="the operators' listener, HOST:PORT or unix:PATH (default: unix:DIR/ops.sock)",
    )
    return common


def _add_listeners(serve: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
    serve.add_argument(
        "--rest",
        metavar="HOST:PORT",
        default=env.get("POMOGATOR_REST", "127.0.0.1:8080"),
        help="the REST edge (default: %(default)s)",
    )
    serve.add_argument(
        "--grpc",
        metavar="ADDRESS",
        default=env.get("POMOGATOR_GRPC", "127.0.0.1:50051"),
        help="the gRPC service, HOST:PORT or unix:PATH (default: %(default)s)",
    )
    serve.add_argument(
        "--only",
        choices=("rest", "grpc"),
        default=env.get("POMOGATOR_ONLY"),
        help="run only the edge, or only the service",
    )
    serve.add_argument(
        "--target",
        metavar="TARGET",
        default=env.get("POMOGATOR_TARGET"),
        help="with --only rest: where the service is, as gRPC names it",
    )
