"""Comparison of calls and payments, as their callers know them, with the books."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.clock import SystemClock
from services.storage.accounts import account_by_name
from services.storage.audit import audit
from services.storage.base import Transaction
from services.storage.opening import open_database

ACCOUNT = "acme"
REQUEST_NANO = 1_000_000
TOKEN_NANO = 10_000
MAX_TOKENS = 50


@dataclass(slots=True)
class Call:
    """A call as its caller knows it."""

    cycle: int
    """The cycle in which it was made."""
    status: int = 0
    """The HTTP status; 0 without an answer."""
    tokens: int | None = None
    """The completion tokens of a complete answer; None where it is truncated."""
    whole_at: float = 0.0
    """The time at which the answer was complete."""
    heard: list[float] = field(default_factory=list)
    """The time of each piece of a stream."""
    piece_tokens: float = 5 / 4
    """Tokens of a piece, where the gateway counts: one for every four bytes. A word has five."""
    most_tokens: int = MAX_TOKENS
    """The most tokens of the answer."""

    def unpaid_at(self, charge: int) -> float:
        """The time of the first piece that a charge does not cover; 0 where it covers all."""
        paid = int(max(0, charge - REQUEST_NANO) // TOKEN_NANO / self.piece_tokens)
        return self.heard[paid] if paid < len(self.heard) else 0.0

    def due(self, tokens: int) -> int:
        """The price of a whole answer with this many tokens."""
        return REQUEST_NANO + tokens * TOKEN_NANO

    def due_at_most(self, tokens: int) -> int:
        """The most that it may cost if the service died before the settlement.

        A stream of so many pieces may have been written down whole without what it took; then its
        tokens are estimated, as of any broken stream.
        """
        return self.due(max(tokens, math.ceil(len(self.heard) * self.piece_tokens)))


@dataclass(slots=True)
class Tally:
    """The calls, payments and kills of a run."""

    calls: dict[str, Call] = field(default_factory=dict)
    """All calls by request ID."""
    credits: dict[str, int] = field(default_factory=dict)
    """All acknowledged payments by request ID."""
    killed_at: dict[int, float] = field(default_factory=dict)
    """The time of the service's kill, by cycle."""
    kills: Counter[str] = field(default_factory=Counter)
    """The number of kills by process."""


async def reconcile(state: Path, database_url: str, tally: Tally) -> Sequence[str]:
    """Compare the tally with the ledger while no call runs, and return a report."""
    database = await open_database(state, database_url, SystemClock())
    try:
        result = await database.read(audit)
        holds = await database.read(_holds)
        extensions = await database.read(_extensions)
        payments = await database.read(_credits)
        account = await database.read(account_by_name, ACCOUNT)
    finally:
        await database.close()
    assert result.findings == (), result.findings
    assert account is not None
    assert account.held == 0
    assert set(extensions) <= {("voided", 0)}
    assert len(holds) == len({request_id for request_id, _, _ in holds}), "two holds for a call"
    ends = {request_id: (end, charge) for request_id, end, charge in holds}
    assert ends.keys() <= tally.calls.keys()
    for request_id, amount in tally.credits.items():
        assert payments[request_id] == amount, request_id
    assert account.posted == sum(payments.values()) - sum(charge for _, charge in ends.values())

    ages, lost = [], []
    for request_id, call in tally.calls.items():
        end, charge = ends.get(request_id, ("none", 0))
        if call.tokens is None:
            # An abandoned call costs its prompt, which has no price here, and what was passed on.
            assert charge <= call.due(call.most_tokens), (request_id, call, end, charge)
            assert call.status in (0, 200) or charge == 0, (request_id, call, end, charge)
            if end in ("recovered", "voided") and (unpaid_at := call.unpaid_at(charge)):
                lost.append(tally.killed_at.get(call.cycle, unpaid_at) - unpaid_at)
            continue
        if (end, charge) == ("settled", call.due(call.tokens)):
            continue
        # Whole, but its settlement was still on its way when the service died.
        assert call.cycle in tally.killed_at, (request_id, call, end, charge)
        assert end in ("recovered", "voided"), (request_id, call, end, charge)
        assert charge <= call.due_at_most(call.tokens), (request_id, call, end, charge)
        ages.append(tally.killed_at[call.cycle] - call.whole_at)
    whole = sum(call.tokens is not None for call in tally.calls.values())
    return (
        f"kills {dict(tally.kills)}",
        f"books {dict(result.counts)}",
        f"calls {len(tally.calls)}, of which {whole} came whole",
        f"extensions of holds: {len(extensions)}",
        f"payments acknowledged {len(tally.credits)}, in the books {len(payments)}",
        f"whole answers not billed in full, since the service died on the way: {len(ages)}"
        + (f", the oldest {max(ages) * 1000:.0f} ms before its death" if ages else ""),
        f"streams cut by a death that had not been written down whole: {len(lost)}"
        + (f", the oldest word lost {max(lost) * 1000:.0f} ms before it" if lost else ""),
    )


def _holds() -> Transaction[Sequence[tuple[str, str, int]]]:
    rows = yield "SELECT request_id, state, charge FROM holds WHERE extends = ''", ()
    return [(str(request_id), str(end), int(str(charge))) for request_id, end, charge in rows]


def _extensions() -> Transaction[Sequence[tuple[str, int]]]:
    rows = yield "SELECT state, charge FROM holds WHERE extends <> ''", ()
    return [(str(end), int(str(charge))) for end, charge in rows]


def _credits() -> Transaction[dict[str, int]]:
    rows = yield "SELECT substr(id, 8), amount FROM transfers WHERE id LIKE 'credit:%'", ()
    return {str(request_id): int(str(amount)) for request_id, amount in rows}
