"""Lists without end, patterns for names, and data of other accounts."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.embeddings.v1 import embedding_service_pb2 as embeddings
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.usage.v1 import usage_service_pb2 as usage

import services
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import MODEL, FaultStand, fitting


def described(*files: Any) -> list[MethodDescriptor]:
    """All methods that the files describe."""
    found: list[ServiceDescriptor] = [
        service for file in files for service in file.DESCRIPTOR.services_by_name.values()
    ]
    return [method for service in found for method in service.methods]


OPERATORS = described(accounts, keys, ledger)
PUBLIC = described(chat, embeddings, models, usage)
LISTS = [one for one in OPERATORS if "page_size" in one.input_type.fields_by_name]
SEARCHED = [
    one
    for one in OPERATORS
    if (field := one.input_type.fields_by_name.get("account")) and field.message_type is None
]


async def call(stand: FaultStand, method: MethodDescriptor, **fields: Any) -> Any:
    """The answer to an operator."""
    service = method.containing_service.full_name
    async with stand.service.operators_channel() as channel:
        rpc: Any = channel.unary_unary(
            f"/{service}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return await rpc(GetMessageClass(method.input_type)(**fields))


async def test_page_sizes_are_bounded(open_stand: OpenStand) -> None:
    """Every list of the contract lowers a page of a billion, and refuses a negative one. Row 35."""
    stand = await open_stand()
    assert {"ListAccounts", "ListKeys", "ListTransfers"} <= {one.name for one in LISTS}
    for method in LISTS:
        named = {"account": "default"} if "account" in method.input_type.fields_by_name else {}
        for size in (1001, 2**31 - 1):
            await call(stand, method, page_size=size, **named)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(stand, method, page_size=-1, **named)

        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "page_size" in (refused.value.details() or "")


async def test_wildcards_match_nothing(open_stand: OpenStand) -> None:
    """`%` and `_` match nothing: an account's name is compared exactly. Row 35."""
    stand = await open_stand()
    stand.play(fitting)
    assert (await stand.ask()).status == 200
    for method, name in product(SEARCHED, ("%", "%%%%%%%%", "______t", "default%", "*")):
        if method.name in {"CreateAccount", "CreateKey"} and name == "______t":
            continue  # A good name for a new one.
        found: object = ()
        try:
            found = (await call(stand, method, account=name)).ListFields()
        except grpc.aio.AioRpcError as error:
            code = error.code()
        else:
            code = grpc.StatusCode.NOT_FOUND
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
        assert not found, (method.full_name, name)


def test_no_sql_pattern_comes_from_a_caller() -> None:
    """All patterns of SQL stand in the statements; none comes from a caller. Row 35."""
    folder = Path(services.__file__).parent
    patterns = re.compile(r"\b(?:I?LIKE|SIMILAR TO|REGEXP|GLOB) (?!')")
    for path in sorted(folder.rglob("*.py")):
        assert not patterns.search(path.read_text()), path


def test_public_methods_name_no_account() -> None:
    """The key decides whose data it is: no public method has a field for an account. Row 36."""
    for method in PUBLIC:
        names = set(method.input_type.fields_by_name)
        assert not names & {"account", "key_id", "tenant", "owner"}, method.full_name


async def other_key(stand: FaultStand) -> str:
    """The key of another account, which has used nothing."""
    (create,) = (one for one in OPERATORS if one.name == "CreateKey")
    made = await call(stand, create, account="other")
    return str(made.secret)


@pytest.mark.parametrize("query", ["", "?account=default", "?key_id=key-0", "?name=default"])
async def test_query_parameters_do_not_show_other_accounts(
    open_stand: OpenStand, query: str
) -> None:
    """Whatever a caller adds to the address, the answer is its own account's or a refusal.

    Row 36.
    """
    stand = await open_stand()
    stand.play(fitting)
    assert (await stand.ask()).status == 200
    assert (await stand.charged())[0] == 1
    stranger = {"Authorization": f"Bearer {await other_key(stand)}"}

    async with aiohttp.ClientSession(stand.url, headers=stranger) as http:
        for path in ("/v1/usage", "/v1/balance"):
            async with http.get(path + query) as answer:
                text = (await stand.read(answer)).text
                assert answer.status in {200, 400}
                assert MODEL not in text
                assert "default" not in text.replace(query[1:], "")
        for path in ("/v1/accounts/default/usage", "/v1/accounts/default", "/v1/keys"):
            async with http.get(path) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (
                    404,
                    "unknown_url",
                )


async def test_idempotency_keys_belong_to_an_account(open_stand: OpenStand) -> None:
    """The same `Idempotency-Key` of another account is another call, paid by that account.

    Row 36.
    """
    stand = await open_stand()
    stand.play(fitting)
    (credit,) = (one for one in OPERATORS if one.name == "CreditAccount")
    stranger = await other_key(stand)
    await call(stand, credit, account="other", amount_nano_usd=10**9, request_id="r")
    named = {"Idempotency-Key": "order-1"}
    for key in (stand.key, stranger, stand.key, stranger):
        headers = {**named, "Authorization": f"Bearer {key}"}
        reply = await stand.ask(stream=False, headers=headers)
        assert reply.status == 200

    assert len(stand.second.requests) + len(stand.first.requests) == 2
    await stand.wait_until_idle()
    (report,) = (one for one in OPERATORS if one.name == "ReportUsage")
    for account in ("default", "other"):
        rows = (await call(stand, report, account=account)).models
        assert [row.call_count for row in rows] == [1]
