"""Idempotency: a call with an idempotency key is answered once, and equal calls get that answer.

A caller that sends a key (`idempotency-key`, 1 to 255 printable ASCII characters) may repeat
its call without paying again. Keys belong to accounts. A call whose key was used before gets:

    the first call is in flight           IDEMPOTENCY_IN_PROGRESS, retry after a second
    the first call was answered           the same answer: every event, ID, usage and cost
    the answer was too long to store,     ALREADY_EXISTS
    or the account has too many newer
    a newer release stored the answer,    SERVICE_UNAVAILABLE, retry: during an update another
    with words that this one lacks        replica has them
    the first request was different       IDEMPOTENCY_MISMATCH

Requests are equal if their specifications and parameter policies are equal. A whole answer and a
stream are equal, since both are made from the same events. A replay takes nothing from balance
and limits, and causes no request to a provider. An answer that is drained for a caller that has
disconnected (`services.completions.drains`) is replayed, too.

Only a complete answer is stored, for a day, and for an account no more than 64 MiB of answers and
100,000 keys, the latest ones: of older answers only the key is kept, older keys are forgotten.
Every other end of a call releases its key, so that the next call with the key runs: a refusal, a
provider's failure, a cancellation, an answer that broke off (the caller has paid for what it
received, at least the prompt, and pays for the next call), a killed process (once its lease has
ended). Of requests only a keyed digest is stored; answers are stored only for calls with a key.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import NamedTuple, Self

from services.common.call_names import IDEMPOTENCY_KEY_HEADER
from services.common.contract.message_table import UntranslatableError
from services.common.off_loop import off_loop
from services.common.request_headers import is_idempotency_key
from services.completions.stored_calls import AnswerRecording, parse_answer, request_fingerprint
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch, Finished
from services.domain.spec import CompletionRequest, read_bytes
from services.errors import Failure, invalid
from services.providers.upstream import LEFT
from services.storage.base import Database
from services.storage.idempotency import (
    RUNNING,
    Run,
    UsedKey,
    bound_account,
    claim,
    delete_expired,
    release,
    store_answer,
)
from services.storage.pepper import Pepper
from services.telemetry.supervisor import SupervisedTask, Supervisor

log = logging.getLogger(__name__)

REPLAYED: Mapping[str, str] = {
    "idempotency-replayed": "true",
    "x-pomogator-idempotent-replayed": "true",
}
"""Headers of a replayed answer."""

STORE_S = 24 * 3600.0
"""Time for which an answer is stored."""

BOUND_SHARE = 8
"""An account's bounds are applied each time a process has stored this part of them."""

RETRY_AFTER_S = 1.0
"""The Retry-After of a call whose key is in use."""

SWEEP_S = 60.0
"""The interval at which expired keys are deleted."""

SWEEP_MAX = 200
"""The most keys that are deleted in one transaction."""


class AccountBounds(NamedTuple):
    """Most that is kept for an account."""

    answer_bytes: int = 64 * 2**20
    """Bytes of answers. Of older answers only the keys are kept."""
    keys: int = 100_000
    """Keys of ended calls."""


ACCOUNT_BOUNDS = AccountBounds()

SetHeaders = Callable[[Mapping[str, str]], None]
"""Sets headers of an answer before its first batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentCall:
    """A call with an idempotency key."""

    account: str
    """The account that the key belongs to."""
    key: str
    """The idempotency key."""
    request: CompletionRequest
    """The request."""


def check_idempotency_key(key: str) -> None:
    """Raise Failure INVALID_FIELD if a key is malformed."""
    if not is_idempotency_key(key):
        message = "An idempotency key has 1 to 255 printable ASCII characters."
        raise invalid(IDEMPOTENCY_KEY_HEADER, message)


class Idempotency:
    """Runs calls with a key once. A context manager, within which expired keys are deleted.

    `owner` is the name under which this process has its lease in the database.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        pepper: Pepper,
        *,
        store_s: float = STORE_S,
        bounds: AccountBounds = ACCOUNT_BOUNDS,
        supervisor: Supervisor | None = None,
    ) -> None:
        """`supervisor` runs the deletion of expired keys. None: one of its own."""
        self._supervisor = supervisor or Supervisor()
        self._database = database
        self._owner = owner
        self.pepper = pepper
        """Keys the digests of requests."""
        self._store_ms = round(store_s * 1000)
        self._bounds = bounds
        self._stored_since_bound: dict[str, tuple[int, int]] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._unreleased: set[Run] = set()
        self._sweeper: SupervisedTask | None = None

    async def __aenter__(self) -> Self:
        self._sweeper = self._supervisor.start(self._keep_sweeping, "idempotency sweep")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, *self._releases, return_exceptions=True)

    async def run_once(
        self,
        call: IdempotentCall,
        run_call: Callable[[], AsyncGenerator[Batch, None]],
        before_replay: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Batch, None]:
        """Yield the answer of `run_call`, or the stored answer of an equal call.

        `before_replay` is awaited before the first batch of a replay. The answer is stored before
        its last batch is yielded: a caller that saw the end will see it again.

        Raises Failure: IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_MISMATCH, ALREADY_EXISTS,
        STORAGE_UNAVAILABLE, SERVICE_UNAVAILABLE; and the failures of `run_call`.
        """
        run = Run(account=call.account, key=call.key, id=secrets.token_hex(8))
        request = call.request
        size = len(request.raw.body) if request.raw is not None else read_bytes(request.spec)
        fingerprint = await off_loop(size, request_fingerprint, request, self.pepper)
        used = await self.claim(run, fingerprint)
        if used is not None:
            replayed = _replayed(stored_answer(used, fingerprint))
            await before_replay()
            for batch in replayed:
                yield batch
            return
        recording = AnswerRecording()
        stored = False
        try:
            async with aclosing(run_call()) as batches:
                async for batch in batches:
                    if batch is LEFT:
                        yield batch
                        continue
                    recording.add(batch)
                    if isinstance(batch[-1], Finished):
                        stored = await self.store(run, recording.answer)
                    yield batch
        finally:
            if not stored:
                # Awaited, so that a caller that gets a failure can repeat the call at once.
                # Shielded, since the caller's task may be cancelled twice.
                await asyncio.shield(self.release(run))

    async def sweep(self) -> None:
        """Delete the keys that have expired or lost their process; repeat failed releases."""
        for run in tuple(self._unreleased):
            await self._database.write(release, run)
            self._unreleased.discard(run)
        while await self._database.write(delete_expired, SWEEP_MAX) == SWEEP_MAX:
            pass

    async def claim(self, run: Run, fingerprint: str) -> UsedKey | None:
        """Claim a key for a call. Return what the key was used for, if it was."""
        claiming = asyncio.ensure_future(self._database.write(claim, run, fingerprint, self._owner))
        try:
            return await asyncio.shield(claiming)
        except BaseException:
            # The caller cancelled or the database failed: the key may be claimed all the same.
            await asyncio.shield(self.release(run, after=claiming))
            raise

    async def store(self, run: Run, answer: bytes | None) -> bool:
        """Store the answer, None for one that is too long. The caller gets it where that fails."""
        try:
            stored = await self._database.write(store_answer, run, answer, self._store_ms)
        except Failure:
            stored = False
        if stored:
            self._count(run.account, len(answer or b""))
        else:
            log.warning("idempotency.store_failed", extra={"account": run.account})
        return stored

    def _count(self, account: str, stored_bytes: int) -> None:
        """Count what was stored for an account. Apply its bounds each time a share is reached."""
        total_bytes, total_keys = self._stored_since_bound.pop(account, (0, 0))
        counted = (total_bytes + stored_bytes, total_keys + 1)
        if any(new * BOUND_SHARE >= most for new, most in zip(counted, self._bounds, strict=True)):
            task = asyncio.create_task(self._bound(account), name="idempotency bound")
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)
        else:
            self._stored_since_bound[account] = counted

    async def _bound(self, account: str) -> None:
        with suppress(Failure):  # The next share of the bounds applies them again.
            answers, keys = await self._database.write(bound_account, account, *self._bounds)
            if answers or keys:
                fields = {"account": account, "answers": answers, "keys": keys}
                log.info("idempotency.bounded", extra=fields)

    def release(
        self, run: Run, *, after: asyncio.Future[UsedKey | None] | None = None
    ) -> asyncio.Task[None]:
        """Release the key of a call without an answer, once `after` is done."""
        task = asyncio.create_task(self._do_release(run, after), name="idempotency release")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return task

    async def _do_release(self, run: Run, after: asyncio.Future[UsedKey | None] | None) -> None:
        if after is not None:
            await asyncio.gather(after, return_exceptions=True)
        try:
            await self._database.write(release, run)
        except Failure:
            self._unreleased.add(run)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            with suppress(Failure):  # The next sweep repeats it.
                await self.sweep()


def _replayed(answer: bytes) -> list[Batch]:
    try:
        return parse_answer(answer)
    except UntranslatableError:
        raise Failure(
            ErrorReason.SERVICE_UNAVAILABLE,
            "A newer version of the gateway has stored the answer to the call with this "
            "idempotency key. Please try again: the gateway is being updated.",
            retry_after_s=RETRY_AFTER_S,
        ) from None


def stored_answer(used: UsedKey, fingerprint: str) -> bytes:
    """Return the answer of an equal call. Raises Failure without one."""
    if used.fingerprint != fingerprint:
        raise Failure(
            ErrorReason.IDEMPOTENCY_MISMATCH, "This idempotency key was used with another request."
        )
    if used.state == RUNNING:
        raise Failure(
            ErrorReason.IDEMPOTENCY_IN_PROGRESS,
            "The call with this idempotency key is still running.",
            retry_after_s=RETRY_AFTER_S,
        )
    if used.answer is None:
        raise Failure(
            ErrorReason.ALREADY_EXISTS,
            "The call with this idempotency key was answered, but its answer is not kept: it was "
            "too long, or your account has too many newer ones. To make the call again, use "
            "another key.",
        )
    return used.answer
