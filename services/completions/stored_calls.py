"""Stored form of a call with an idempotency key: a digest of the request, and the answer.

Both are made from the contract's messages, so that a replica of another version reads them: the
digest of a request stays the same, and answers that one version has stored are replayed by the
next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO

import msgspec
from google.protobuf import proto
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.call_names import IDEMPOTENCY_KEY_HEADER
from services.common.contract.chat import fill_request
from services.common.contract.chat_events import read_batch, to_batch_message
from services.common.json_places import members
from services.domain.events import Batch
from services.domain.raw_request import RawRequest
from services.domain.spec import CompletionRequest
from services.storage.pepper import Pepper

ANSWER_BYTES_MAX = 2**20
"""Longer answers are not stored."""


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


def parse_answer(answer: bytes) -> Iterator[Batch]:
    """Yield the batches of a stored answer, without events that this version does not know."""
    stream = BytesIO(answer)
    parse = proto.parse_length_prefixed
    while (message := parse(pb.StreamChatCompletionResponse, stream)) is not None:
        if batch := read_batch(message):
            yield batch
