from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.account_sums import PeriodStarts, credits_of, key_charges
from services.storage.accounts import BALANCE_MAX, Account, credit_account, ensure_account
from services.storage.base import Database, Transaction
from services.storage.keys import KeyScope, StoredKey, insert_key
from services.storage.reports import Grouping, usage_by_model, usage_sums

HOLD = """
    INSERT INTO holds (id, request_id, account, key_id, model, amount, price, month, owner, state,
        charge, created_ms, ended_ms)
    VALUES (?, 'r', 'acme', ?, 'm', 0, '', '', 'o', ?, ?, ?, ?)
"""
STARTS = PeriodStarts(total=0, day=300, week=200, month=100)


def put_key(key_id: str) -> Transaction[None]:
    """Insert the account and a key."""
    yield from ensure_account("acme", 0)
    scope = KeyScope()
    yield from insert_key(
        StoredKey(
            id=key_id, account="acme", digest=key_id, prefix="", display_name="", scope=scope,
            created_ms=0,
        )
    )  # fmt: skip


def put_hold(name: str, key_id: str, state: str, charge: int, created_ms: int) -> Transaction[None]:
    """Insert a hold."""
    ended_ms = None if state == "held" else created_ms
    yield HOLD, (name, key_id, state, charge, created_ms, ended_ms)


def clear() -> Transaction[None]:
    """Delete all holds."""
    yield "DELETE FROM holds", ()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    charges=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 10), st.integers(2**62, 2**63 - 1)), st.integers(0, 400)
        ),
        max_size=12,
    )
)
async def test_charges_of_a_key_are_exact(
    database: Database, charges: list[tuple[int, int]]
) -> None:
    """Also where they add up to more than the databases' integers hold."""
    if await database.read(key_charges, "k", STARTS, "") is None:
        await database.write(put_key, "k")
    await database.write(clear)
    for index, (charge, created_ms) in enumerate(charges):
        await database.write(put_hold, f"h{index}", "k", "settled", charge, created_ms)
    await database.write(put_hold, "other", "k2", "settled", 5, 400)
    await database.write(put_hold, "running", "k", "held", 0, 400)

    found = await database.read(key_charges, "k", STARTS, "")

    assert found is not None
    sums = [sum(charge for charge, ms in charges if ms >= start) for start in STARTS]
    assert [found.total, found.day, found.week, found.month] == sums
    (by_model,) = await database.read(usage_by_model, "acme", 0, 2**40)
    assert by_model.charge == sums[0] + 5
    for grouping in Grouping:
        rows = await database.read(usage_sums, "acme", grouping, (0, 2**40), 9, (-1, ""))
        assert [row.usage.charge for row in rows] == [sums[0] + 5]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    amounts=st.lists(
        st.one_of(
            st.integers(-10, 10),
            st.integers(BALANCE_MAX - 2, BALANCE_MAX),
            st.integers(-BALANCE_MAX, 2 - BALANCE_MAX),
        ),
        max_size=16,
    )
)
async def test_credits_near_the_edges(database: Database, amounts: list[int]) -> None:
    """A credit is accepted or refused; sums stay exact, also beyond 64 bits of credits."""
    name = f"a{await database.write(next_number)}"
    await database.write(ensure_account, name, 0, unlimited=True)
    balance = 0
    for index, amount in enumerate(amounts):
        accepted = -BALANCE_MAX <= balance + amount <= BALANCE_MAX
        refused: ErrorReason | None = None
        try:
            await database.write(credit_account, name, amount, f"{name}-{index}", 0)
        except Failure as failure:
            refused = failure.reason
        else:
            balance += amount
        over, under = ErrorReason.INVALID_FIELD, ErrorReason.INSUFFICIENT_QUOTA
        assert refused == (None if accepted else over if amount > 0 else under)

    found = await database.read(credits_of, name)

    assert found is not None
    assert (found.account.posted, found.credited, found.charged) == (balance, balance, 0)


def next_number() -> Transaction[int]:
    """Return the number of accounts."""
    rows = yield "SELECT count(*) FROM accounts", ()
    return int(str(rows[0][0]))


async def test_credits_beyond_64_bits(database: Database) -> None:
    """Many credits and debits add up to more than an integer holds, one by one."""
    await database.write(ensure_account, "acme", 0)
    for index in range(10):
        await database.write(credit_account, "acme", BALANCE_MAX, f"in-{index}", 0)
        await database.write(credit_account, "acme", -BALANCE_MAX, f"out-{index}", 0)

    found = await database.read(credits_of, "acme")

    assert found is not None
    assert isinstance(found.account, Account)
    assert (found.credited, found.charged) == (0, 0)
