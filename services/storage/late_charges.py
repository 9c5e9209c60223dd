"""Late charges: what calls have cost whose holds another process had recovered meanwhile.

A process that stands still for longer than its lease is taken for dead. When it goes on, its calls
end after their holds, which were charged at their last checkpoint. The difference is a transfer of
its own. A rest is recorded as overrun: the balance may be spent by then. What the checkpoint, an
estimate, was above the charge is given back.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.storage.base import Transaction, Values
from services.storage.hold_ends import TRANSFER, HoldEnd, Releases, token_values
from services.storage.ledger import REVENUE, HoldRow

SELECT_RECOVERED = "SELECT charge FROM holds WHERE id = ? AND state IN ('recovered', 'voided')"
SETTLE_LATE = """
    UPDATE holds SET state = ?, charge = charge + ?,
        overrun = CASE WHEN overrun + ? > 0 THEN overrun + ? ELSE 0 END,
        source = ?, prompt_tokens = ?, completion_tokens = ?, thinking_tokens = ?,
        cache_read_tokens = ?, cache_write_tokens = ?, ended_ms = ?
    WHERE id = ? AND state IN ('recovered', 'voided') AND charge = ?
"""


def charge_late(hold_ends: Sequence[HoldEnd]) -> Transaction[list[bool]]:
    """Correct the charge of each call whose hold was recovered. Return for each whether it was."""
    charged: list[bool] = []
    releases = Releases()
    for hold_end in hold_ends:
        hold = hold_end.hold
        rows = yield SELECT_RECOVERED, (hold.id,)
        before = int(str(rows[0][0])) if rows else hold_end.charge
        rest = hold_end.charge - before
        values = (
            hold_end.state, rest, rest, rest, *token_values(hold_end.usage), hold_end.ended_ms,
            hold.id, before,
        )  # fmt: skip
        late = rest and (yield SETTLE_LATE, values)
        charged.append(bool(late))
        if late:
            releases.add(hold.account, 0, hold.key_id, hold.month, rest)
            yield TRANSFER, _transfer_values(hold, rest, hold_end.ended_ms)
    yield from releases.apply()
    return charged


def _transfer_values(hold: HoldRow, rest: int, ended_ms: int) -> Values:
    if rest > 0:
        return f"charge+{hold.id}", hold.account, REVENUE, rest, ended_ms
    return f"charge-{hold.id}", REVENUE, hold.account, -rest, ended_ms
