"""Commands that create, list, change, rotate and revoke API keys."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as pb
from pomogator.operations.v1.operations_service_pb2 import ListChannelsRequest

from services.accounts.key_messages import SWITCHES
from services.cli.operator_client import Operators, operators
from services.cli.output import (
    CLEARED,
    CommandError,
    remark,
    say,
    say_table,
    show_time,
    show_usd,
)
from services.common.chat_names import THINKING_SUFFIX

PAGE_SIZE = 1000

NONE = "none"
"""Word for a limit or an expiry that a key does not have, in options and in output."""

UPDATES: Mapping[str, str] = {
    "name": "display_name",
    "models": "scope.models",
    "expires": "scope.expire_time",
    **{name: f"scope.{name}" for name in SWITCHES},
    "rpm": "scope.requests_per_minute",
    "tpm": "scope.tokens_per_minute",
    "concurrency": "scope.concurrent_call_count",
    "monthly_usd": "scope.monthly_nano_usd",
}
"""Options of `keys update`, with the fields that they change."""

LIMITS: Mapping[str, str] = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "concurrency": "concurrent_call_count",
}
"""Limits that are counts, by their names in the command line."""


async def create_key(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Create a key and print it. The last line is the key alone."""
    scope = pb.KeyScope(
        models=arguments.models,
        **{name: getattr(arguments, name) for name in SWITCHES},
        expire_time=arguments.expires,
        requests_per_minute=arguments.rpm,
        tokens_per_minute=arguments.tpm,
        concurrent_call_count=arguments.concurrency,
        monthly_nano_usd=arguments.monthly_usd,
    )
    request = pb.CreateKeyRequest(
        account=arguments.account,
        display_name=arguments.name,
        scope=scope,
        request_id=arguments.request_id,
    )
    async with operators(arguments, env) as service:
        answer = await service.ask(service.keys.CreateKey, request)
        if not answer.secret:
            raise CommandError(
                f"this request has created {answer.key.key_id} before, and its secret was shown "
                f"then: `pomogator keys rotate {answer.key.key_id}` gives it a new one"
            )
        name, no_money = answer.key.account, ""
        try:
            paying = accounts.GetAccountRequest(account=name)
            no_money = _no_money((await service.ask(service.accounts.GetAccount, paying)).account)
        finally:  # The secret is not lost if the operator may not read accounts.
            say(f"{answer.key.key_id} for account {name}.{no_money} The key is shown only now:")
            say(answer.secret)
        await _remark_unserved(service, scope.models)


NOT_LISTED = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)
"""Statuses of the list of channels where no server runs, which alone has channels, and where the
operator's certificate does not allow it."""


async def _remark_unserved(service: Operators, models: Sequence[str]) -> None:
    """Say which of a key's models the running server has no channel for: names may be misspelt."""
    if not models:
        return
    try:
        listed = await service.ask(service.operations.ListChannels, ListChannelsRequest())
    except grpc.aio.AioRpcError as error:
        if error.code() not in NOT_LISTED:
            raise
        return
    served = {status.model for status in listed.channels}
    unserved = [name for name in models if name.removesuffix(THINKING_SUFFIX) not in served]
    if unserved:
        remark(f"no channel serves {', '.join(unserved)}: calls are refused until one does")


def _no_money(account: accounts.Account) -> str:
    """Return a remark about an account whose calls will be refused; empty for any other."""
    if account.unlimited or account.balance_nano_usd > 0:
        return ""
    return (
        f" The account has no money (balance: {show_usd(account.balance_nano_usd)} USD), so calls "
        f"are refused until `pomogator accounts credit {account.account} USD --request-id ID`."
    )


async def list_keys(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print all keys, or those of an account, oldest first."""
    rows = []
    request = pb.ListKeysRequest(page_size=PAGE_SIZE, account=arguments.account)
    async with operators(arguments, env) as service:
        while True:
            answer = await service.ask(service.keys.ListKeys, request)
            rows += [_row(key) for key in answer.keys]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        if arguments.account and not rows:  # An unknown account is an error.
            named = accounts.GetAccountRequest(account=arguments.account)
            await service.ask(service.accounts.GetAccount, named)
    say_table(("ID", "ACCOUNT", "KEY", "CREATED", "STATUS", "NAME"), rows)


async def update_key(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Change a key and print its terms. Its secret stays."""
    request = pb.UpdateKeyRequest(key=pb.Key(key_id=arguments.id))
    for option, path in UPDATES.items():
        value = getattr(arguments, option)
        if value is None:
            continue
        request.update_mask.paths.append(path)
        if value is not CLEARED:
            _set(request.key, path, value)
    if not request.update_mask.paths:
        raise CommandError("nothing to change: give at least one option")
    async with operators(arguments, env) as service:
        answer = await service.ask(service.keys.UpdateKey, request)
        await _remark_unserved(service, request.key.scope.models)
    _say_terms(answer.key)


def _set(key: pb.Key, path: str, value: Any) -> None:
    *outer, name = path.split(".")
    message: Any = key.scope if outer else key
    if name == "models":
        message.models.extend(value)
    elif name == "expire_time":
        message.expire_time.CopyFrom(value)
    else:
        setattr(message, name, value)


def _say_terms(key: pb.Key) -> None:
    scope: Any = key.scope
    say(f"key:         {key.key_id} ({key.prefix}…)")
    say(f"account:     {key.account}")
    say(f"name:        {key.display_name}")
    say(f"models:      {', '.join(scope.models) or 'all'}")
    say(f"expires:     {show_time(scope.expire_time) if scope.HasField('expire_time') else NONE}")
    say(f"strict:      {'yes' if scope.strict else 'no'}")
    say(f"content:     {'text' if scope.text_content else 'as configured'}")
    say(f"-thinking:   {'not listed' if scope.thinking_names_hidden else 'as configured'}")
    say(f"administers: {'its account' if scope.administers_account else 'no'}")
    for label, field in LIMITS.items():
        value = getattr(scope, field) if scope.HasField(field) else None
        say(f"{label + ':':<12} {NONE if value is None else value}")
    budget = scope.monthly_nano_usd
    say(f"monthly USD: {show_usd(budget) if scope.HasField('monthly_nano_usd') else NONE}")


async def rotate_key(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Give a key a new secret and print it. The last line is the key alone."""
    request = pb.RotateKeyRequest(key_id=arguments.id, overlap=arguments.overlap)
    async with operators(arguments, env) as service:
        answer = await service.ask(service.keys.RotateKey, request)
    say(f"{answer.key.key_id} has a new secret. It is shown only now:")
    say(answer.secret)


async def revoke_key(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Revoke a key."""
    request = pb.RevokeKeyRequest(key_id=arguments.id)
    async with operators(arguments, env) as service:
        answer = await service.ask(service.keys.RevokeKey, request)
    say(f"{answer.key.key_id} is revoked since {show_time(answer.key.revoke_time)}")


def _row(key: pb.Key) -> tuple[str, ...]:
    created = show_time(key.create_time)
    return key.key_id, key.account, f"{key.prefix}…", created, _status(key), key.display_name


def _status(key: pb.Key) -> str:
    if key.HasField("revoke_time"):
        return f"revoked {show_time(key.revoke_time)}"
    if key.scope.HasField("expire_time"):
        return f"until {show_time(key.scope.expire_time)}"
    return "valid"
