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

from services.completions.completion_call import CompletionCall
from services.completions.drains import CallState
from services.completions.stored_calls import raw_digest
from services.domain.events import Batch, Finished, RawContent, ReasoningDelta, TextDelta
from services.providers.upstream import LEFT

log = logging.getLogger(__name__)

JOINED = {"x-pomogator-joined": "true"}
"""Header of an answer that is another call's."""

KEPT_S = 60.0
"""How long an answer is kept that was drained without its caller."""
ANSWER_BYTES_MAX = 4 * 2**20
"""Longer answers are not joined."""
EVENT_BYTES = 128
"""Memory of an event without its text."""


def repeat_key(call: CompletionCall) -> bytes:
    """Return what a call has in common with its repeats. Empty: it is not joined.

    A session that is only the name of a prompt cache does not tell a repeat from another call.
    """
    asked = call.request
    session, spec = asked.session_id, asked.spec
    if not session or session == spec.prompt_cache_key or call.idempotency_key is not None:
        return b""
    if not call.snapshot.joins_repeats:
        return b""
    body = raw_digest(asked.raw) if asked.raw is not None else msgspec.msgpack.encode(spec)
    caller = (call.caller.account, call.caller.key_id, session, asked.parameter_policy)
    return hashlib.blake2b(msgspec.msgpack.encode((caller, body)), digest_size=16).digest()


class JoinedRepeats:
    """Answers of calls that may be repeated."""

    def __init__(self) -> None:
        self._first: dict[bytes, _FirstAnswer] = {}

    async def run(
        self,
        key: bytes,
        state: CallState,
        run_call: Callable[[], AsyncGenerator[Batch, None]],
        before_join: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Batch, None]:
        """Yield the answer of an equal call that runs or was drained, or else of `run_call`.

        `before_join` is awaited before the first batch of another call's answer.
        """
        while (first := self._first.get(key)) is not None:
            await first.ended.wait()
            if (answer := first.answer) is None:
                continue
            state.record.is_joined = True
            await before_join()
            ids = {"request_id": state.record.request_id, "first_request_id": first.request_id}
            log.info("call.joined", extra=ids)
            for batch in answer:
                yield batch
            self._forget(key, first)
            return
        first = self._first[key] = _FirstAnswer(state.record.request_id)
        try:
            async with aclosing(run_call()) as batches:
                async for batch in batches:
                    if batch is not LEFT:
                        first.add(batch)
                    yield batch
        finally:
            first.ended.set()
            if first.answer is not None and state.is_abandoned:
                asyncio.get_running_loop().call_later(KEPT_S, self._forget, key, first)
            else:
                self._forget(key, first)

    def _forget(self, key: bytes, first: _FirstAnswer) -> None:
        if self._first.get(key) is first:
            del self._first[key]


class _FirstAnswer:
    """Answer of a call, as far as it has come."""

    __slots__ = ("_batches", "_is_complete", "_left_bytes", "ended", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.ended = asyncio.Event()
        self._batches: list[Batch] = []
        self._left_bytes = ANSWER_BYTES_MAX
        self._is_complete = False

    @property
    def answer(self) -> list[Batch] | None:
        """The batches. None: it is not complete, or too long."""
        return self._batches if self._is_complete and self._left_bytes >= 0 else None

    def add(self, batch: Batch) -> None:
        """Add a batch, while the answer is not too long."""
        if self._left_bytes < 0:
            return
        for event in batch:
            self._left_bytes -= EVENT_BYTES
            if isinstance(event, RawContent):
                self._left_bytes -= len(event.data)
            elif isinstance(event, TextDelta | ReasoningDelta):
                self._left_bytes -= len(event.text)
        self._batches.append(batch)
        self._is_complete = isinstance(batch[-1], Finished)
        if self._left_bytes < 0:
            self._batches.clear()
