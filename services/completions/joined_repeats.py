"""Joined repeats: a request that an agent repeats in its session gets the answer of the first one.

Claude Code repeats a request whose stream broke at once without `stream`, Codex up to five times.
Where the first call still runs, also drained without its caller, the repeat waits for its answer,
which is charged once. An answer that was drained is kept a minute for it. A call that failed is
made again; a request that comes again after its answer was delivered is a new call, and so are
equal requests of other sessions and keys.

The answers are in the memory of one process: another replica does not know them. Calls with an
idempotency key have a rule of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import msgspec

from services.common.memory_budget import MemoryBudget
from services.common.off_loop import off_loop
from services.completions.completion_call import CompletionCall
from services.completions.stored_calls import raw_digest
from services.domain.events import Batch, Event, Finished, RawContent, ReasoningDelta, TextDelta
from services.providers.upstream import LEFT
from services.telemetry.calls import CallRecord

log = logging.getLogger(__name__)

JOINED = {"x-pomogator-joined": "true"}
"""Header of an answer that is another call's."""

KEPT_S = 60.0
"""How long an answer is kept that was drained without its caller."""
ANSWER_BYTES_MAX = 4 * 2**20
"""Longer answers are not joined."""
BUDGET_BYTES = 64 * 2**20
"""The most memory of all answers together. While it is used up, no further ones can be joined."""
EVENT_BYTES = 128
"""Memory of an event without its text."""


def may_be_repeated(call: CompletionCall) -> bool:
    """Return whether a call is joined to its repeats.

    A session that is only the name of a prompt cache does not tell a repeat from another call.
    """
    session = call.request.session_id
    if not session or session == call.request.spec.prompt_cache_key:
        return False
    return call.idempotency_key is None and call.snapshot.joins_repeats


def _key(call: CompletionCall) -> bytes:
    """Return the key that a call shares with its repeats."""
    asked = call.request
    body = raw_digest(asked.raw) if asked.raw is not None else msgspec.msgpack.encode(asked.spec)
    caller = (call.caller.account, call.caller.key_id, asked.session_id, asked.parameter_policy)
    return hashlib.blake2b(msgspec.msgpack.encode((caller, body)), digest_size=16).digest()


class JoinedRepeats:
    """Answers of calls that may be repeated."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._first: dict[bytes, _FirstAnswer] = {}
        self._budget = MemoryBudget(budget_bytes)

    async def run(
        self,
        call: CompletionCall,
        run_call: Callable[[], AsyncGenerator[Batch, None]],
        before_join: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Batch, None]:
        """Yield the answer of an equal call that runs or was drained, or else of `run_call`.

        `before_join` is awaited before the first batch of another call's answer.
        """
        raw = call.request.raw
        size = call.size if raw is None else len(raw.body)
        key = await off_loop(size, _key, call)
        while (first := self._first.get(key)) is not None:
            await first.ended.wait()
            if (answer := first.answer) is None:
                continue
            call.record.is_joined = True
            await before_join()
            ids = {"request_id": call.record.request_id, "first_request_id": first.request_id}
            log.info("call.joined", extra=ids)
            for batch in answer:
                yield batch
            self._forget(key, first)
            return
        first = self._first[key] = _FirstAnswer(call.record, self._budget)
        try:
            async with aclosing(run_call()) as batches:
                async for batch in batches:
                    if batch is not LEFT:
                        first.add(batch)
                    yield batch
        finally:
            first.ended.set()
            if first.answer is not None and call.is_abandoned:
                asyncio.get_running_loop().call_later(KEPT_S, self._forget, key, first)
            else:
                self._forget(key, first)

    def _forget(self, key: bytes, first: _FirstAnswer) -> None:
        first.release()
        if self._first.get(key) is first:
            del self._first[key]


class _FirstAnswer:
    """Answer of a call, as far as it has come."""

    __slots__ = ("_account", "_batches", "_budget", "_bytes", "_is_kept", "ended", "request_id")

    def __init__(self, record: CallRecord, budget: MemoryBudget) -> None:
        self.request_id = record.request_id
        self.ended = asyncio.Event()
        self._account = record.account
        self._budget = budget
        self._batches: list[Batch] = []
        self._bytes = 0
        self._is_kept = True

    @property
    def answer(self) -> list[Batch] | None:
        """The batches. None: it is not complete, or too long."""
        batches = self._batches
        return batches if batches and isinstance(batches[-1][-1], Finished) else None

    def add(self, batch: Batch) -> None:
        """Add a batch, while the answer is not too long."""
        if not self._is_kept:
            return
        size = sum(map(_size, batch))
        is_short = self._bytes + size <= ANSWER_BYTES_MAX
        if is_short and self._budget.take(self._account, size):
            self._bytes += size
            self._batches.append(batch)
            return
        self._is_kept = False
        self._batches = []
        self.release()

    def release(self) -> None:
        """Stop counting the memory of the answer. Calls that read it may go on to do so."""
        if self._bytes:
            self._budget.give_back(self._account, self._bytes)
            self._bytes = 0


def _size(event: Event) -> int:
    if isinstance(event, RawContent):
        return EVENT_BYTES + len(event.data)
    return EVENT_BYTES + (len(event.text) if isinstance(event, TextDelta | ReasoningDelta) else 0)
