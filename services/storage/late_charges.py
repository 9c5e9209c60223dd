"""Late charges: what calls have cost whose holds another process had recovered meanwhile.

A process that stands still for longer than its lease is taken for dead. When it goes on, its calls
end after their holds, which were charged at their last checkpoint. The rest is a transfer of its
own, and recorded as overrun: the balance may be spent by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.storage.base import Transaction
from services.storage.hold_ends import TRANSFER, HoldEnd, Releases, token_values
from services.storage.ledger import REVENUE

SELECT_RECOVERED = "SELECT charge FROM holds WHERE id = ? AND state IN ('recovered', 'voided')"
SETTLE_LATE = """
    UPDATE holds SET state = 'settled', charge = charge + ?, overrun = overrun + ?, source = ?,
        prompt_tokens = ?, completion_tokens = ?, thinking_tokens = ?, cache_read_tokens = ?,
        cache_write_tokens = ?, ended_ms = ?
    WHERE id = ? AND state IN ('recovered', 'voided') AND charge = ?
"""


def charge_late(hold_ends: Sequence[HoldEnd]) -> Transaction[list[bool]]:
    """Charge the rest for each call whose hold was recovered. Return for each whether it was."""
    charged: list[bool] = []
    releases = Releases()
    for hold_end in hold_ends:
        hold = hold_end.hold
        rows = yield SELECT_RECOVERED, (hold.id,)
        before = int(str(rows[0][0])) if rows else hold_end.charge
        rest = hold_end.charge - before
        values = (
            rest, rest, *token_values(hold_end.tokens), hold_end.ended_ms, hold.id, before,
        )  # fmt: skip
        late = rest > 0 and (yield SETTLE_LATE, values)
        charged.append(bool(late))
        if late:
            releases.add(hold.account, 0, hold.key_id, hold.month, rest)
            identity = f"charge+{hold.id}"
            yield TRANSFER, (identity, hold.account, REVENUE, rest, hold_end.ended_ms)
    yield from releases.apply()
    return charged
