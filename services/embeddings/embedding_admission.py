"""Admission of a call for embeddings: limits, and the hold of what it may cost."""

from __future__ import annotations

from collections.abc import Sequence

from services.admission.call_plan import CallPlan
from services.admission.gate import Gate
from services.embeddings.embedding_call import EmbeddingCall
from services.embeddings.embedding_ticket import EmbeddingTicket
from services.embeddings.request_parts import RequestPart
from services.providers.base import Target
from services.routing.attempts import cut_attempts_max


async def admit(
    gate: Gate,
    plan: CallPlan,
    call: EmbeddingCall,
    parts: Sequence[RequestPart],
    targets: Sequence[Target],
) -> EmbeddingTicket:
    """Admit a call with these parts. The ticket must be closed when the call is over.

    Raises Failure as `Gate.take` does. A refused call has taken nothing from limits and balance.
    """
    tokens = sum([part.tokens for part in parts])
    # A request for vectors has the total timeout, since its answer is one document.
    channels = {each.channel.name: each.channel for each in targets}
    timeouts_s = sorted((each.total_timeout_s for each in channels.values()), reverse=True)
    cuts = cut_attempts_max(timeouts_s, call.time_left_s())
    amount = plan.tariffs[plan.model].estimate_nano(tokens * (1 + cuts), 0)
    lease, hold = await gate.take(plan, call.record, tokens, amount)
    return EmbeddingTicket(gate=gate, lease=lease, hold=hold, plan=plan, record=call.record)
