"""Calls that are made once, however often they are asked for.

A caller that names its call (`idempotency-key`, 1 to 255 printable ASCII characters) may
ask again without paying again. Names belong to accounts. What happens to a call whose
name is in use:

    the first one is running            IDEMPOTENCY_IN_PROGRESS: come back in a second
    it was answered                     the same answer: every chunk, ID, usage and cost
    it was answered at too great length ALREADY_EXISTS: paid for, but not kept
    it asked for something else         IDEMPOTENCY_MISMATCH

Equal means the same request and parameter policy. Whether the answer is to be whole or a
stream does not matter: either is made from the same chunks. A replay takes nothing from
balance and limits, and no provider hears of it. Where an answer is drained for a caller that
has left (`services.completions.drains`), it is there when the caller asks again.

Only an answer that came to its end is kept, for a day. Whatever else ends a call frees
its name, so that asking again makes it anew: a refusal, a provider's failure, a caller
that left, an answer that broke off (its caller has paid for what came, and pays for the
next attempt), a killed process (once its lease has ended). Requests are not stored, but
for a keyed digest; answers only where the caller named its call.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Self

from google.protobuf import proto
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.common.request_headers import is_idempotency_key
from services.errors import Failure
from services.providers.base import Batch
from services.storage.base import Database
from services.storage.idempotency import (
    RUNNING,
    Run,
    UsedKey,
    claim,
    delete_expired,
    release,
    store_answer,
)
from services.storage.pepper import Pepper
from services.telemetry.supervisor import Supervisor

log = logging.getLogger(__name__)

HEADER = "idempotency-key"
"""The metadata that names a call."""

REPLAYED: Mapping[str, str] = {
    "idempotency-replayed": "true",
    "x-pomogator-idempotent-replayed": "true",
}
"""What an answer says that was given before."""

KEEP_S = 24 * 3600.0
"""How long an answer is kept."""

ANSWER_BYTES_MAX = 2**20
"""Longer answers are not kept."""

RETRY_AFTER_S = 1.0
"""When to ask again for an answer that is being made."""

SWEEP_S = 60.0
"""How often what has expired is deleted."""

SWEEP_MAX = 200
"""The most keys that are deleted in one transaction."""

Announce = Callable[[Mapping[str, str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentCall:
    """A call that has a name."""

    account: str
    """Whose name it is."""
    key: str
    """The name."""
    spec: pb.ChatCompletionSpec
    """What is asked for."""
    parameter_policy: pb.ParameterPolicy.ValueType
    """What to do about parameters that the model cannot honour."""


def idempotency_key(metadata: Mapping[str, str]) -> str | None:
    """The name that the caller gave its call, if any. Raises Failure INVALID_FIELD."""
    key = metadata.get(HEADER)
    if key is not None and not is_idempotency_key(key):
        raise Failure(
            reasons.ERROR_REASON_INVALID_FIELD,
            "An idempotency key has 1 to 255 printable ASCII characters.",
            param=HEADER,
        )
    return key


class Idempotency:
    """Makes named calls once. Use it as a context: `async with Idempotency(…)`.

    `owner` is the name under which this process has its lease in the database.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        pepper: Pepper,
        *,
        keep_s: float = KEEP_S,
        supervisor: Supervisor | None = None,
    ) -> None:
        """`supervisor` runs the sweeper. None: one of its own."""
        self._supervisor = supervisor or Supervisor()
        self._database = database
        self._owner = owner
        self._pepper = pepper
        self._keep_ms = round(keep_s * 1000)
        self._releases: set[asyncio.Task[None]] = set()
        self._stuck: set[Run] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeper = self._supervisor.start(self._sweep_for_ever, "idempotency sweep")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, *self._releases, return_exceptions=True)

    async def stream(
        self,
        call: IdempotentCall,
        make: Callable[[], AsyncGenerator[Batch, None]],
        replaying: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Batch, None]:
        """The answer that `make` gives, or has given to an equal call before.

        `replaying` is awaited before the first batch of a replay. By the time that the last
        batch is given the answer is kept: whoever saw the end will see it again.

        Raises Failure: IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_MISMATCH, ALREADY_EXISTS,
        STORAGE_UNAVAILABLE; and what `make` raises.
        """
        run = Run(account=call.account, key=call.key, id=secrets.token_hex(8))
        fingerprint = self._fingerprint(call)
        record = await self._claim(run, fingerprint)
        if record is not None:
            answer = _answer(record, fingerprint)
            await replaying()
            for batch in _read(answer):
                yield batch
            return
        recording = _AnswerRecording()
        kept = False
        try:
            async with aclosing(make()) as batches:
                async for batch in batches:
                    recording.add(batch)
                    if batch.chunks[-1].HasField("finished"):
                        kept = await self._keep(run, recording)
                    yield batch
        finally:
            if not kept:
                # Awaited, so that whoever hears of a failure can ask again at once. It is
                # not tied to the caller, who may be cancelled twice.
                await asyncio.shield(self._release(run))

    async def sweep(self) -> None:
        """Deletes what has expired or lost its process, and frees what could not be freed."""
        for run in tuple(self._stuck):
            await self._database.write(release, run)
            self._stuck.discard(run)
        while await self._database.write(delete_expired, SWEEP_MAX) == SWEEP_MAX:
            pass

    def _fingerprint(self, call: IdempotentCall) -> str:
        """A digest that only this deployment can compute: prompts can be guessed."""
        spec = hashlib.sha256(call.spec.SerializeToString(deterministic=True))
        text = f"{HEADER}:{call.parameter_policy}:{spec.hexdigest()}"
        return self._pepper.digest(text).hex()

    async def _claim(self, run: Run, fingerprint: str) -> UsedKey | None:
        claiming = asyncio.ensure_future(self._database.write(claim, run, fingerprint, self._owner))
        try:
            return await asyncio.shield(claiming)
        except BaseException:
            # The caller left or the database failed: the key may have been taken all the same.
            await asyncio.shield(self._release(run, after=claiming))
            raise

    async def _keep(self, run: Run, recording: _AnswerRecording) -> bool:
        """Stores the answer. Its caller gets it in any case."""
        try:
            kept = await self._database.write(store_answer, run, recording.answer, self._keep_ms)
        except Failure:
            kept = False
        if not kept:
            log.warning("idempotency.not_kept", extra={"account": run.account})
        return kept

    def _release(
        self, run: Run, *, after: asyncio.Future[UsedKey | None] | None = None
    ) -> asyncio.Task[None]:
        """Frees the key of a call that has no answer, once `after` is done."""
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
            self._stuck.add(run)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            with suppress(Failure):
                await self.sweep()


class _AnswerRecording:
    """The chunks of an answer as they are passed on, for as long as there is room."""

    def __init__(self) -> None:
        self._bytes: BytesIO | None = BytesIO()

    @property
    def answer(self) -> bytes | None:
        """What `_read` reads; None where it is too long."""
        return None if self._bytes is None else self._bytes.getvalue()

    def add(self, batch: Batch) -> None:
        if self._bytes is None:
            return
        proto.serialize_length_prefixed(batch, self._bytes)
        if self._bytes.tell() > ANSWER_BYTES_MAX:
            self._bytes = None


def _read(answer: bytes) -> Iterator[Batch]:
    """The batches of a recorded answer."""
    stream = BytesIO(answer)
    while (batch := proto.parse_length_prefixed(Batch, stream)) is not None:
        yield batch


def _answer(record: UsedKey, fingerprint: str) -> bytes:
    """The answer that is on record for an equal call. Raises Failure where there is none."""
    if record.fingerprint != fingerprint:
        raise Failure(
            reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH,
            "This idempotency key was used with another request.",
        )
    if record.state == RUNNING:
        raise Failure(
            reasons.ERROR_REASON_IDEMPOTENCY_IN_PROGRESS,
            "The call with this idempotency key is still running.",
            retry_after_s=RETRY_AFTER_S,
        )
    if record.answer is None:
        raise Failure(
            reasons.ERROR_REASON_ALREADY_EXISTS,
            "The call with this idempotency key was answered, but the answer was too long to "
            "be kept. To make the call again, use another key.",
        )
    return record.answer
