"""Stored form of a call with an idempotency key: a digest of the request, and the answer.

Both are made from the contract's messages, so that a replica of another version reads them: the
digest of a request stays the same, and answers that one version has stored are replayed by the
next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO
from typing import get_args

import msgspec
from google.protobuf import proto
from msgspec.structs import replace
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.call_names import IDEMPOTENCY_KEY_HEADER
from services.common.contract.chat import fill_request
from services.common.contract.chat_events import read_batch, to_batch_message
from services.common.contract.message_table import UntranslatableError
from services.common.contract.relay_codec import STRUCTS
from services.common.json_places import members
from services.domain.events import Batch, ChoiceFinished, Event, FinishReason
from services.domain.raw_request import RawRequest
from services.domain.spec import CompletionRequest
from services.storage.pepper import Pepper

ANSWER_BYTES_MAX = 2**20
"""Longer answers are not stored."""

FINISH_REASONS: frozenset[str] = frozenset(get_args(FinishReason))


def request_fingerprint(request: CompletionRequest, pepper: Pepper) -> str:
    """Return a digest of a request, keyed by the pepper: a plain one would let guesses reveal it.

    Fields of a newer contract, which this version does not know, do not count.
    """
    if request.raw is not None:
        asked = raw_digest(request.raw)
        return pepper.digest(f"{IDEMPOTENCY_KEY_HEADER}:{request.parameter_policy}:{asked}").hex()
    message = fill_request(request, pb.CreateChatCompletionRequest())
    spec = hashlib.sha256(message.spec.SerializeToString(deterministic=True))
    text = f"{IDEMPOTENCY_KEY_HEADER}:{message.parameter_policy}:{spec.hexdigest()}"
    return pepper.digest(text).hex()


def raw_digest(raw: RawRequest) -> str:
    """Return the digest of a request whose body is valid, whether it asks for a stream or not."""
    digest = hashlib.sha256(f"{raw.api}\n{sorted(raw.headers.items())}\n".encode())
    found = members(raw.body) if raw.members is None else raw.members
    for name, value in sorted(found.items()):
        if name != "stream":
            digest.update(msgspec.json.encode([name, value]))
    return digest.hexdigest()


class AnswerRecording:
    """Copy of an answer, as long as it is short enough to be stored."""

    def __init__(self) -> None:
        self._bytes: BytesIO | None = BytesIO()

    @property
    def answer(self) -> bytes | None:
        """The answer in the form that `parse_answer` reads; None if it is too long."""
        return None if self._bytes is None else self._bytes.getvalue()

    def add(self, batch: Batch) -> None:
        """Add the next batch."""
        if self._bytes is None:
            return
        proto.serialize_length_prefixed(to_batch_message(batch), self._bytes)
        if self._bytes.tell() > ANSWER_BYTES_MAX:
            self._bytes = None


def parse_answer(answer: bytes) -> list[Batch]:
    """Return the batches of a stored answer, without events that this version does not know.

    A finish reason that it does not know is left out: the provider's own word for it stays. Raises
    UntranslatableError: an event has another word that it does not know, such as a tool's type.
    """
    return [_with_known_words(batch) for batch in _batches(answer) if batch]


def _batches(answer: bytes) -> Iterator[Batch]:
    stream = BytesIO(answer)
    parse = proto.parse_length_prefixed
    while (message := parse(pb.StreamChatCompletionResponse, stream)) is not None:
        yield read_batch(message)


def _with_known_words(batch: Batch) -> Batch:
    known = [_with_known_reason(event) for event in batch]
    try:
        # Edges decode it so: `read_batch` lets all words pass.
        return STRUCTS.decode_batch(STRUCTS.encode_batch(known))
    except msgspec.ValidationError as error:
        raise UntranslatableError(str(error)) from None


def _with_known_reason(event: Event) -> Event:
    if isinstance(event, ChoiceFinished):
        word: str = event.finish_reason
        if word not in FINISH_REASONS:
            return replace(event, finish_reason="")
    return event
