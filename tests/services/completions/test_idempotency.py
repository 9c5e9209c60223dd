from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.completions.idempotency import (
    ANSWER_BYTES_MAX,
    Idempotency,
    IdempotentCall,
    idempotency_key,
)
from services.errors import Failure, UpstreamError
from services.storage.base import Database, Transaction
from services.storage.pepper import Pepper
from tests.services.completions.named_calls import OWNER, Model, answer, ask, call, ignore, refusal


async def test_an_answer_is_given_again_as_it_was(once: Idempotency) -> None:
    """Batch by batch; the model is not asked again."""
    model = Model()

    assert await ask(once, call(), model) == (list(model.batches), False)
    assert await ask(once, call(), model) == (list(model.batches), True)
    assert model.calls == 1


async def test_of_equal_calls_at_once_one_is_made(once: Idempotency) -> None:
    """The others are to come back in a second, and then get its answer."""
    model = Model()
    model.goes_on.clear()
    first = once.stream(call(), model, ignore)
    async with aclosing(first):
        await anext(first)
        refusals = await asyncio.gather(*(refusal(once, call(), model) for _ in range(19)))
        model.goes_on.set()
        rest = [batch async for batch in first]

    assert {each.reason for each in refusals} == {reasons.ERROR_REASON_IDEMPOTENCY_IN_PROGRESS}
    assert {each.retry_after_s for each in refusals} == {1.0}
    assert rest == list(model.batches[1:])
    assert await ask(once, call(), model) == (list(model.batches), True)
    assert model.calls == 1


async def test_whoever_sees_the_end_sees_it_again(once: Idempotency) -> None:
    """The answer is kept before its last batch is given, though its caller never comes back."""
    model = Model()
    async with aclosing(once.stream(call(), model, ignore)) as batches:
        async for batch in batches:
            if batch.chunks[-1].HasField("finished"):
                break

    assert await ask(once, call(), model) == (list(model.batches), True)


@pytest.mark.parametrize("running", [True, False])
async def test_a_name_stands_for_one_request(once: Idempotency, running: bool) -> None:
    """Another request under it is refused, whether the first has its answer or not."""
    model = Model()
    if running:
        model.goes_on.clear()
    async with aclosing(once.stream(call(), model, ignore)) as batches:
        async for _ in batches:
            if running:
                break
        for other in (call(prompt="Bye"), call(max_tokens=1), call(metadata={"a": "b"})):
            refused = await refusal(once, other, model)
            assert refused.reason == reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH
    assert model.calls == 1


async def test_the_policy_is_part_of_the_request(once: Idempotency) -> None:
    """Strict is not what was asked before."""
    strict = IdempotentCall(
        account="acme", key="order-1", spec=call().spec, parameter_policy=pb.PARAMETER_POLICY_STRICT
    )
    await ask(once, call(), Model())

    refused = await refusal(once, strict, Model())

    assert refused.reason == reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH


async def test_the_order_of_labels_does_not_matter(once: Idempotency) -> None:
    """Maps have no order, and no two of them need to serialize alike."""
    labels = {f"label-{n}": str(n) for n in range(16)}
    await ask(once, call(metadata=labels), Model())

    _, replayed = await ask(once, call(metadata=dict(reversed(labels.items()))), Model())

    assert replayed


async def test_accounts_do_not_meet(once: Idempotency) -> None:
    """Another account's call of the same name is made."""
    model = Model()
    await ask(once, call(account="acme"), model)

    assert await ask(once, call(account="other"), model) == (list(model.batches), False)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(reasons.ERROR_REASON_INSUFFICIENT_QUOTA, "Insufficient balance"),
        UpstreamError(reasons.ERROR_REASON_UPSTREAM_DISCONNECTED, "The provider hung up."),
    ],
)
async def test_a_failure_frees_the_name(once: Idempotency, failure: Failure) -> None:
    """By the time that the caller hears of it; even for another request."""
    model = Model()
    model.failure = failure
    assert await refusal(once, call(), model) is failure

    _, replayed = await ask(once, call(prompt="Now really"), Model())

    assert not replayed


async def test_a_caller_that_leaves_frees_the_name(once: Idempotency) -> None:
    """The provider's answer is closed first."""
    model = Model()
    async with aclosing(once.stream(call(), model, ignore)) as batches:
        await anext(batches)

    _, replayed = await ask(once, call(), model)

    assert not replayed
    assert model.calls == 2


async def test_too_long_an_answer_is_not_kept(once: Idempotency) -> None:
    """It is given whole; asked for again, the caller learns that it was paid for."""
    model = Model(*answer(*["x" * (ANSWER_BYTES_MAX // 4)] * 4))
    given, _ = await ask(once, call(), model)

    refused = await refusal(once, call(), model)

    assert given == list(model.batches)
    assert refused.reason == reasons.ERROR_REASON_ALREADY_EXISTS
    assert "too long" in refused.message
    assert model.calls == 1


async def test_a_long_answer_is_kept(once: Idempotency) -> None:
    """Nearly a mebibyte, and bytes of every length of prefix."""
    model = Model(*answer("x", "y" * 200, "z" * (ANSWER_BYTES_MAX - 1000)))
    await ask(once, call(), model)

    assert await ask(once, call(), model) == (list(model.batches), True)


async def test_nothing_readable_is_left_of_a_request(database: Database, once: Idempotency) -> None:
    """Its digest cannot be computed without the pepper either."""
    await ask(once, call(), Model())
    other = Idempotency(database, OWNER, Pepper(b"another deployment"))

    (row,) = await database.read(_all)

    assert "Hello" not in repr(row)
    assert (await refusal(other, call(), Model())).reason == (
        reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH
    )


@pytest.mark.parametrize("key", ["", "é", "a\nb", "a" * 256])
def test_names_are_printable(key: str) -> None:
    """Others are refused, not ignored: the call might be made twice."""
    with pytest.raises(Failure) as refused:
        idempotency_key({"idempotency-key": key})

    assert refused.value.reason == reasons.ERROR_REASON_INVALID_FIELD
    assert refused.value.param == "idempotency-key"


@pytest.mark.parametrize("key", ["a", "order 66", "~" * 255])
def test_any_printable_name_will_do(key: str) -> None:
    """It is taken as it is."""
    assert idempotency_key({"idempotency-key": key}) == key


def test_most_calls_have_no_name() -> None:
    """They are made as often as they are asked for."""
    assert idempotency_key({}) is None


def _all() -> Transaction[list[tuple[object, ...]]]:
    rows = yield "SELECT * FROM idempotency_keys", ()
    return [tuple(row) for row in rows]
