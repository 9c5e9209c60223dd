"""Idempotency keys: which calls run, and which get a stored answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest
from msgspec.structs import replace

from services.completions.idempotency import (
    AccountBounds,
    Idempotency,
    IdempotentCall,
    check_idempotency_key,
)
from services.completions.stored_calls import ANSWER_BYTES_MAX
from services.domain.error_reason import ErrorReason
from services.domain.events import Finished, ToolCallDelta
from services.errors import Failure, UpstreamError
from services.storage.base import Database, Transaction
from services.storage.pepper import Pepper
from tests.services.completions.idempotent_calls import (
    OWNER,
    PEPPER,
    Model,
    answer,
    ask,
    call,
    ignore,
    refusal,
)


async def test_an_equal_call_gets_the_same_answer(once: Idempotency) -> None:
    """Batch by batch, without another call of the model."""
    model = Model()

    assert await ask(once, call(), model) == (list(model.batches), False)
    assert await ask(once, call(), model) == (list(model.batches), True)
    assert model.calls == 1


async def test_an_answer_that_only_a_newer_version_can_read_is_unavailable(
    once: Idempotency,
) -> None:
    """During an update a repeated call reaches a replica that can: nothing is called again."""
    newer = ToolCallDelta(id="c", type=cast("Any", "99"))
    model = Model(*answer("Hi")[:-1], [newer, Finished()])
    await ask(once, call(), model)

    refused = await refusal(once, call(), model)

    assert refused.reason == ErrorReason.SERVICE_UNAVAILABLE
    assert refused.retry_after_s == 1.0
    assert model.calls == 1


async def test_of_equal_calls_at_the_same_time_one_runs(once: Idempotency) -> None:
    """The others get IDEMPOTENCY_IN_PROGRESS; after a second they get its answer."""
    model = Model()
    model.goes_on.clear()
    first = once.run_once(call(), model, ignore)
    async with aclosing(first):
        await anext(first)
        refusals = await asyncio.gather(*(refusal(once, call(), model) for _ in range(19)))
        model.goes_on.set()
        rest = [batch async for batch in first]

    assert {each.reason for each in refusals} == {ErrorReason.IDEMPOTENCY_IN_PROGRESS}
    assert {each.retry_after_s for each in refusals} == {1.0}
    assert rest == list(model.batches[1:])
    assert await ask(once, call(), model) == (list(model.batches), True)
    assert model.calls == 1


async def test_an_answer_is_stored_before_its_last_batch(once: Idempotency) -> None:
    """Even if the caller does not request more."""
    model = Model()
    async with aclosing(once.run_once(call(), model, ignore)) as batches:
        async for batch in batches:
            if isinstance(batch[-1], Finished):
                break

    assert await ask(once, call(), model) == (list(model.batches), True)


@pytest.mark.parametrize("running", [True, False])
async def test_a_key_stands_for_one_request(once: Idempotency, running: bool) -> None:
    """Another request with it is refused, whether the first call has its answer or not."""
    model = Model()
    if running:
        model.goes_on.clear()
    async with aclosing(once.run_once(call(), model, ignore)) as batches:
        async for _ in batches:
            if running:
                break
        for other in (call(prompt="Bye"), call(max_tokens=1), call(metadata={"a": "b"})):
            refused = await refusal(once, other, model)
            assert refused.reason == ErrorReason.IDEMPOTENCY_MISMATCH
    assert model.calls == 1


async def test_the_policy_is_part_of_the_request(once: Idempotency) -> None:
    """The same specification with a strict policy is another request."""
    request = replace(call().request, parameter_policy="strict")
    strict = IdempotentCall(account="acme", key="order-1", request=request)
    await ask(once, call(), Model())

    refused = await refusal(once, strict, Model())

    assert refused.reason == ErrorReason.IDEMPOTENCY_MISMATCH


async def test_the_order_of_labels_does_not_matter(once: Idempotency) -> None:
    """Maps have no order, and equal maps may serialize differently."""
    labels = {f"label-{n}": str(n) for n in range(16)}
    await ask(once, call(metadata=labels), Model())

    _, replayed = await ask(once, call(metadata=dict(reversed(labels.items()))), Model())

    assert replayed


async def test_keys_belong_to_accounts(once: Idempotency) -> None:
    """Another account's call with the same key runs."""
    model = Model()
    await ask(once, call(account="acme"), model)

    assert await ask(once, call(account="other"), model) == (list(model.batches), False)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(ErrorReason.INSUFFICIENT_QUOTA, "Insufficient balance"),
        UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "The provider hung up."),
    ],
)
async def test_a_failure_releases_the_key(once: Idempotency, failure: Failure) -> None:
    """Before the caller gets the failure; even for another request."""
    model = Model()
    model.failure = failure
    assert await refusal(once, call(), model) is failure

    _, replayed = await ask(once, call(prompt="Now really"), Model())

    assert not replayed


async def test_a_disconnect_releases_the_key(once: Idempotency) -> None:
    """The provider's answer is closed first."""
    model = Model()
    async with aclosing(once.run_once(call(), model, ignore)) as batches:
        await anext(batches)

    _, replayed = await ask(once, call(), model)

    assert not replayed
    assert model.calls == 2


async def test_an_answer_that_is_too_long_is_not_stored(once: Idempotency) -> None:
    """Its caller gets it whole; the next call gets ALREADY_EXISTS."""
    model = Model(*answer(*["x" * (ANSWER_BYTES_MAX // 4)] * 4))
    given, _ = await ask(once, call(), model)

    refused = await refusal(once, call(), model)

    assert given == list(model.batches)
    assert refused.reason == ErrorReason.ALREADY_EXISTS
    assert "too long" in refused.message
    assert model.calls == 1


async def test_the_answers_of_an_account_are_bounded(database: Database) -> None:
    """Older answers are dropped, and their keys kept: a repeated call is refused, not billed."""
    model = Model(*answer("x" * 1000))
    bounded = Idempotency(database, OWNER, PEPPER, bounds=AccountBounds(answer_bytes=4500))
    async with bounded:
        assert (await ask(bounded, call(account="other"), model))[1] is False
        for number in range(12):
            await ask(bounded, call(f"order-{number:02}"), model)
        await asyncio.gather(*bounded._releases)

        outcomes: list[object] = []
        for number in range(12):
            try:
                outcomes.append((await ask(bounded, call(f"order-{number:02}"), model))[1])
            except Failure as failure:
                outcomes.append(failure.reason)

        assert outcomes.count(True) == 4
        assert outcomes.count(ErrorReason.ALREADY_EXISTS) == 8
        assert (await ask(bounded, call(account="other"), model))[1] is True
    assert model.calls == 13


async def test_a_long_answer_is_stored(once: Idempotency) -> None:
    """Nearly a mebibyte, with length prefixes of one to three bytes."""
    model = Model(*answer("x", "y" * 200, "z" * (ANSWER_BYTES_MAX - 1000)))
    await ask(once, call(), model)

    assert await ask(once, call(), model) == (list(model.batches), True)


async def test_requests_are_stored_only_as_a_keyed_digest(
    database: Database, once: Idempotency
) -> None:
    """With another pepper the same request has another digest."""
    await ask(once, call(), Model())
    other = Idempotency(database, OWNER, Pepper(b"another deployment"))

    (row,) = await database.read(_all)

    assert "Hello" not in repr(row)
    assert (await refusal(other, call(), Model())).reason == (ErrorReason.IDEMPOTENCY_MISMATCH)


@pytest.mark.parametrize("key", ["", "é", "a\nb", "a" * 256])
def test_an_invalid_key_is_refused(key: str) -> None:
    """It is not ignored: the call might run twice."""
    with pytest.raises(Failure) as refused:
        check_idempotency_key(key)

    assert refused.value.reason == ErrorReason.INVALID_FIELD
    assert refused.value.param == "idempotency-key"


@pytest.mark.parametrize("key", ["a", "order 66", "~" * 255])
def test_a_key_of_printable_ascii_is_used_as_it_is(key: str) -> None:
    """From 1 to 255 characters, with spaces."""
    check_idempotency_key(key)


def _all() -> Transaction[list[tuple[object, ...]]]:
    rows = yield "SELECT * FROM idempotency_keys", ()
    return [tuple(row) for row in rows]
