"""Consistency checks of the ledger: invariants that hold at every moment, after any crash.

I0  every amount is a whole number
I1  an account's balance is the sum of its transfers, its held amount the sum of its
    holds; over all accounts, the gateway's own included, the sum is zero
I2  no limited account has spent more than its balance, except for recorded overruns
I3  every hold that ended with a charge has exactly one transfer of that amount, or two where
    the charge was corrected after a recovery, and every charge has such a hold
I4  a charge is within its hold and the extensions, or the excess is recorded as overrun, and so
    is what was charged after a recovery
I5  nothing happened twice: a hold has one end, budgets add up

Holds that were deleted after their retention count by their sums (`services.storage.hold_sums`):
of each account, the sum of the charges without a hold is that of the deleted holds.
"""

# ruff: noqa: S608 - the statements are put together from constants of this module
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from services.storage.base import Transaction
from services.storage.exact_sums import UNIT
from services.storage.hold_sums import FIGURES, STATES
from services.storage.ledger import DEPOSITS, REVENUE

FINDINGS_MAX = 20
"""Maximum number of violations reported per check."""

COUNTS: Mapping[str, str] = {
    "accounts": "SELECT count(*) FROM accounts",
    "transfers": "SELECT count(*) FROM transfers",
    "held": "SELECT count(*) FROM holds WHERE state = 'held'",
    **{
        state: f"SELECT (SELECT count(*) FROM holds WHERE state = '{state}' AND extends = '')"
        f" + (SELECT CAST(COALESCE(sum({state}), 0) AS BIGINT) FROM hold_sums)"
        for state in STATES
    },
}


def _sums(column: str, name: str, condition: str = "1 = 1") -> str:
    """Return the columns `{name}_high`, in `UNIT`s, and `{name}_low`: the sum of `column`."""
    amount = f"CASE WHEN {condition} THEN {column} ELSE 0 END"
    return f"sum(({amount}) / {UNIT}) AS {name}_high, sum(({amount}) % {UNIT}) AS {name}_low"


def _signed(positive: Sequence[str], negative: Sequence[str]) -> str:
    """Return the difference of integers and of pairs of sums. It is exact near 0.

    The cast makes it a decimal in PostgreSQL. In SQLite a product that overflows is a float.
    """
    parts = []
    for part in ("high", "low"):
        plus = " + ".join(_part(name, part) for name in positive)
        minus = "".join(f" - {_part(name, part)}" for name in negative)
        parts.append(f"({plus}{minus})")
    high, low = parts
    return f"{high} * CAST({UNIT} AS NUMERIC) + {low}"


def _part(name: str, part: str) -> str:
    """Return the high or low part of a pair of sums such as `came.total`, or of a column."""
    if name.endswith("()"):
        return f"COALESCE({name.removesuffix('()')}_{part}, 0)"
    return f"({name} / {UNIT})" if part == "high" else f"({name} % {UNIT})"


INTEGERS: Mapping[str, tuple[str, Sequence[str]]] = {
    "accounts": ("name", ("unlimited", "markup_bp", "posted", "held")),
    "transfers": ("id", ("amount",)),
    "holds": ("id", ("amount", "charge", "overrun")),
    "budgets": ("key_id", ("spent", "held")),
    "hold_sums": ("account", FIGURES),
}
"""Columns with amounts, by table, and the column that names the row."""


def _not_integers(table: str) -> str:
    """Return the statement that selects rows with other values. SQLite stores any type."""
    name, columns = INTEGERS[table]
    wrong = " OR ".join(f"{column} <> CAST({column} AS BIGINT)" for column in columns)
    return f"SELECT {name} FROM {table} WHERE {wrong}"


POSTED_IS_THE_SUM = f"""
    SELECT accounts.name FROM accounts
    LEFT JOIN (SELECT credit AS name, {_sums("amount", "total")} FROM transfers GROUP BY credit)
        AS came ON came.name = accounts.name
    LEFT JOIN (SELECT debit AS name, {_sums("amount", "total")} FROM transfers GROUP BY debit)
        AS went ON went.name = accounts.name
    WHERE {_signed(["posted", "went.total()"], ["came.total()"])} <> 0
"""
HELD_IS_THE_SUM = f"""
    SELECT accounts.name FROM accounts
    LEFT JOIN (SELECT account, {_sums("amount", "total")} FROM holds WHERE state = 'held'
        GROUP BY account) AS running ON running.account = accounts.name
    WHERE {_signed(["held"], ["running.total()"])} <> 0
"""
BETWEEN_KNOWN_ACCOUNTS = """
    SELECT id FROM transfers
    WHERE debit NOT IN (SELECT name FROM accounts UNION SELECT ? UNION SELECT ?)
        OR credit NOT IN (SELECT name FROM accounts UNION SELECT ? UNION SELECT ?)
"""
WITHIN_THE_BALANCE = f"""
    SELECT accounts.name FROM accounts
    LEFT JOIN (SELECT account, {_sums("overrun", "total")}
        FROM (SELECT account, overrun FROM holds
            UNION ALL SELECT account, overrun FROM hold_sums) AS ended
        GROUP BY account) AS excess ON excess.account = accounts.name
    WHERE unlimited = 0 AND {_signed(["posted", "excess.total()"], ["held"])} < 0
"""
CHARGED_AS_ENDED = """
    SELECT holds.id FROM holds LEFT JOIN transfers ON transfers.id = 'charge:' || holds.id
    LEFT JOIN transfers AS late ON late.id = 'charge+' || holds.id
    LEFT JOIN transfers AS back ON back.id = 'charge-' || holds.id
    WHERE COALESCE(transfers.amount, 0) + COALESCE(late.amount, 0) - COALESCE(back.amount, 0)
            <> charge
        OR (transfers.id IS NOT NULL AND (transfers.debit <> account OR transfers.credit <> ?))
        OR (late.id IS NOT NULL AND (late.debit <> account OR late.credit <> ?))
        OR (back.id IS NOT NULL AND (back.credit <> account OR back.debit <> ?))
        OR (state IN ('held', 'voided') AND charge <> 0)
        OR (state = 'held') <> (ended_ms IS NULL)
"""
CHARGED_FOR_A_HOLD = """
    SELECT transfers.id FROM transfers LEFT JOIN holds ON holds.id = substr(transfers.id, 8)
    WHERE (credit = ? OR debit = ? OR transfers.id LIKE 'charge:%') AND holds.id IS NULL
        AND transfers.created_ms >= (SELECT before_ms FROM hold_retention)
"""
CHARGED_FOR_DELETED_HOLDS = f"""
    SELECT accounts.name FROM accounts
    LEFT JOIN (SELECT debit AS payer, {_sums("transfers.amount", "total")}
        FROM transfers LEFT JOIN holds ON holds.id = substr(transfers.id, 8)
        WHERE transfers.credit = ? AND holds.id IS NULL
            AND transfers.created_ms < (SELECT before_ms FROM hold_retention)
        GROUP BY debit) AS paid ON paid.payer = accounts.name
    LEFT JOIN (SELECT credit AS payer, {_sums("transfers.amount", "total")}
        FROM transfers LEFT JOIN holds ON holds.id = substr(transfers.id, 8)
        WHERE transfers.debit = ? AND holds.id IS NULL
            AND transfers.created_ms < (SELECT before_ms FROM hold_retention)
        GROUP BY credit) AS back ON back.payer = accounts.name
    LEFT JOIN (SELECT account, {_sums("charge", "total")} FROM hold_sums GROUP BY account)
        AS deleted ON deleted.account = accounts.name
    WHERE {_signed(["paid.total()"], ["back.total()", "deleted.total()"])} <> 0
"""
OVERRUN_IS_RECORDED = f"""
    SELECT holds.id FROM holds
    LEFT JOIN (SELECT extends, {_sums("amount", "total")} FROM holds WHERE extends <> ''
        GROUP BY extends) AS more ON more.extends = holds.id
    LEFT JOIN transfers AS late ON late.id = 'charge+' || holds.id
    WHERE overrun > CASE WHEN charge > holds.amount THEN charge - holds.amount ELSE 0 END
            + COALESCE(late.amount, 0)
        OR {_signed(["overrun", "holds.amount", "more.total()"], ["charge"])} < 0
"""
BUDGETS_ADD_UP = f"""
    SELECT budgets.key_id FROM budgets
    LEFT JOIN (SELECT key_id, month, {_sums("charge", "spent")},
            {_sums("amount", "held", "state = 'held'")}
        FROM (SELECT key_id, month, charge, amount, state FROM holds WHERE month <> ''
            UNION ALL SELECT key_id, month, charge, 0, 'settled' FROM hold_sums WHERE month <> '')
            AS taken
        GROUP BY key_id, month) AS used
        ON used.key_id = budgets.key_id AND used.month = budgets.month
    WHERE {_signed(["budgets.spent"], ["used.spent()"])} <> 0
        OR {_signed(["budgets.held"], ["used.held()"])} <> 0
"""

CHECKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    **{f"I0: not a whole number in {table}": (_not_integers(table), ()) for table in INTEGERS},
    "I1: balance differs from the transfers": (POSTED_IS_THE_SUM, ()),
    "I1: held differs from the holds": (HELD_IS_THE_SUM, ()),
    "I1: transfer with an unknown account": (
        BETWEEN_KNOWN_ACCOUNTS,
        (REVENUE, DEPOSITS, REVENUE, DEPOSITS),
    ),
    "I2: spent more than there was": (WITHIN_THE_BALANCE, ()),
    "I3: charge differs from the hold's": (CHARGED_AS_ENDED, (REVENUE,) * 3),
    "I3: charge without a hold": (CHARGED_FOR_A_HOLD, (REVENUE,) * 2),
    "I3: charges differ from the sums of deleted holds": (
        CHARGED_FOR_DELETED_HOLDS,
        (REVENUE,) * 2,
    ),
    "I4: overrun is not recorded": (OVERRUN_IS_RECORDED, ()),
    "I5: budget differs from the holds": (BUDGETS_ADD_UP, ()),
}
"""Checks by finding: the statement that selects the IDs of violations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Result of an audit."""

    counts: Mapping[str, int]
    """Number of accounts, transfers, and holds by state."""
    findings: tuple[str, ...]
    """Violations, each with the ID concerned. Empty: the ledger is consistent."""


def audit() -> Transaction[Audit]:
    """Run all checks on one snapshot of the database."""
    counts = {}
    for name, statement in COUNTS.items():
        rows = yield statement, ()
        counts[name] = msgspec.convert(rows[0][0], int)
    findings = []
    for fault, (statement, values) in CHECKS.items():
        rows = yield statement, values
        findings += [f"{fault}: {row[0]}" for row in rows[:FINDINGS_MAX]]
    return Audit(counts=counts, findings=tuple(findings))
