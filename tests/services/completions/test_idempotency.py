from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.completions.idempotency import (
    ANSWER_BYTES_MAX,
    REPLAYED,
    SWEEP_MAX,
    Batch,
    Idempotency,
    NamedCall,
    idempotency_key,
)
from services.errors import Failure, UpstreamError
from services.storage.base import Database, Listener, P, T, Transaction, unavailable
from services.storage.idempotency import Run, claim
from services.storage.ledger import end_leases, renew_lease
from services.storage.pepper import Pepper

DAY_MS = 24 * 3600 * 1000
OWNER = "this process"
PEPPER = Pepper(b"salt is not enough")

Make = Callable[[], AsyncGenerator[Batch, None]]


def call(
    key: str = "order-1", account: str = "acme", prompt: str = "Hello", **spec: Any
) -> NamedCall:
    """A call with a name."""
    asked = pb.ChatCompletionSpec(model="a/b", **spec)
    asked.messages.add().content.add().text = prompt
    return NamedCall(
        account=account, key=key, spec=asked, parameter_policy=pb.PARAMETER_POLICY_UNSPECIFIED
    )


def answer(*texts: str) -> list[Batch]:
    """An answer: its beginning, a batch for each text, its end."""
    started = pb.ChatCompletionChunk(started=pb.CompletionStarted(completion_id="chatcmpl-1"))
    started.started.create_time.seconds = 1_800_000_000
    deltas = [pb.ChatCompletionChunk(delta=pb.CompletionDelta(text=text)) for text in texts]
    end = pb.ChatCompletionChunk(finished=pb.CompletionFinished(cost_nano_usd=7))
    end.finished.usage.total_token_count = 9
    return [[started], *([delta] for delta in deltas), [pb.ChatCompletionChunk(), end]]


class Model:
    """Answers, and counts how often it was asked."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches or tuple(answer("Hi", " there"))
        self.calls = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.failure: Failure | None = None

    async def __call__(self) -> AsyncGenerator[Batch, None]:
        """One answer: its beginning at once, the rest when it `goes_on`."""
        self.calls += 1
        yield self.batches[0]
        await self.goes_on.wait()
        if self.failure is not None:
            raise self.failure
        for batch in self.batches[1:]:
            yield batch


@pytest.fixture
async def once(database: Database) -> AsyncIterator[Idempotency]:
    """What is under test, in a process that lives."""
    await database.write(renew_lease, OWNER, DAY_MS)
    async with Idempotency(database, OWNER, PEPPER) as once:
        yield once


async def ask(once: Idempotency, asked: NamedCall, model: Make) -> tuple[list[Batch], bool]:
    """The answer, and whether it was said to be a replay."""
    told: dict[str, str] = {}
    async with aclosing(once.stream(asked, model, told.update)) as batches:
        got: list[Batch] = [list(batch) async for batch in batches]
    return got, told == REPLAYED


async def refusal(once: Idempotency, asked: NamedCall, model: Make) -> Failure:
    """Why the call is refused."""
    with pytest.raises(Failure) as refused:
        await ask(once, asked, model)
    return refused.value


def ignore(_headers: Mapping[str, str]) -> None:
    """Has no use for headers."""


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
            if batch[-1].HasField("finished"):
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
    strict = NamedCall(
        account="acme",
        key="order-1",
        spec=call().spec,
        parameter_policy=pb.PARAMETER_POLICY_STRICT,
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


async def test_a_cancelled_call_frees_the_name(once: Idempotency) -> None:
    """At whatever point it was cancelled, and cancelled once more: it never stays taken."""
    for steps in range(12):
        model = Model()
        model.goes_on.clear()
        asked = call(key=f"order-{steps}")
        task = asyncio.create_task(ask(once, asked, model))
        for _ in range(steps):
            await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.gather(*once._releases)
        model.goes_on.set()

        assert await ask(once, asked, model) == (list(model.batches), False)


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


async def test_an_answer_is_kept_for_its_time(database: Database) -> None:
    """After that the call is made again, and sweeping leaves nothing of it."""
    await database.write(renew_lease, OWNER, DAY_MS)
    once = Idempotency(database, OWNER, PEPPER, keep_s=-0.001)
    model = Model()
    await ask(once, call(), model)
    _, replayed = await ask(once, call(), model)
    assert not replayed

    for number in range(SWEEP_MAX + 1):
        await ask(once, call(key=str(number)), model)
    await once.sweep()

    assert await database.read(_rows) == 0


async def test_the_dead_leave_their_names(database: Database, once: Idempotency) -> None:
    """A call of a process that was killed may be made again, once its lease has ended."""
    await database.write(renew_lease, "killed", DAY_MS)
    other = Idempotency(database, "killed", PEPPER)
    model = Model()
    abandoned = other.stream(call(), model, ignore)
    await anext(abandoned)
    busy = await refusal(once, call(), model)
    await database.write(end_leases, "killed")

    _, replayed = await ask(once, call(), model)

    assert busy.reason == reasons.ERROR_REASON_IDEMPOTENCY_IN_PROGRESS
    assert not replayed
    await abandoned.aclose()
    assert (await ask(once, call(), model))[1], "what comes late takes nothing away"


async def test_nothing_readable_is_left_of_a_request(database: Database, once: Idempotency) -> None:
    """Its digest cannot be computed without the pepper either."""
    await ask(once, call(), Model())
    other = Idempotency(database, OWNER, Pepper(b"another deployment"))

    (row,) = await database.read(_all)

    assert "Hello" not in repr(row)
    assert (await refusal(other, call(), Model())).reason == (
        reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH
    )


class Flaky:
    """A database that does its work, but loses what it should say of some of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.loses: set[str] = set()
        """Names of transactions that are not done at all."""
        self.mutes: set[str] = set()
        """Names of transactions that are done, and reported as failures."""

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As told by name."""
        if transaction.__name__ in self.loses:
            raise unavailable()
        result = await self._database.write(transaction, *args, **kwargs)
        if transaction.__name__ in self.mutes:
            raise unavailable()
        return result

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As ever."""
        return await self._database.read(transaction, *args, **kwargs)

    def subscribe(self, listener: Listener) -> None:
        """As ever."""
        self._database.subscribe(listener)

    @property
    def healthy(self) -> bool:
        """As ever."""
        return self._database.healthy

    @property
    def exclusive(self) -> bool:
        """As ever."""
        return self._database.exclusive

    async def close(self) -> None:
        """Its owner does."""


@pytest.fixture
async def flaky(database: Database) -> Flaky:
    """The database, as yet without trouble."""
    await database.write(renew_lease, OWNER, DAY_MS)
    return Flaky(database)


async def test_without_the_database_a_named_call_is_not_made(flaky: Flaky) -> None:
    """Nobody could say whether it was made before; and it may have been noted all the same."""
    once, model = Idempotency(flaky, OWNER, PEPPER), Model()
    for trouble in (flaky.loses, flaky.mutes):
        trouble.add("claim")
        refused = await refusal(once, call(), model)
        assert refused.reason == reasons.ERROR_REASON_STORAGE_UNAVAILABLE
        trouble.clear()

    assert model.calls == 0
    assert await ask(once, call(), model) == (list(model.batches), False)


async def test_an_answer_that_cannot_be_kept_is_given(flaky: Flaky) -> None:
    """Its name is freed as soon as the database is back."""
    once, model = Idempotency(flaky, OWNER, PEPPER), Model()
    flaky.loses |= {"keep", "release"}
    assert await ask(once, call(), model) == (list(model.batches), False)
    flaky.loses.clear()
    busy = await refusal(once, call(), model)
    await once.sweep()

    _, replayed = await ask(once, call(), model)

    assert busy.reason == reasons.ERROR_REASON_IDEMPOTENCY_IN_PROGRESS
    assert not replayed


async def test_sweeping_leaves_what_runs(database: Database, once: Idempotency) -> None:
    """However long it takes."""
    await database.write(claim, Run(account="acme", key="k", id="r"), "print", OWNER)
    await once.sweep()

    assert await database.read(_rows) == 1


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


def _rows() -> Transaction[int]:
    rows = yield "SELECT count(*) FROM idempotency_keys", ()
    return int(str(rows[0][0]))


def _all() -> Transaction[list[tuple[object, ...]]]:
    rows = yield "SELECT * FROM idempotency_keys", ()
    return [tuple(row) for row in rows]
