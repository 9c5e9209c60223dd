"""Codecs of a relay: the bytes of requests and answers in its frames.

An edge and a service with the same structs send these themselves, in MessagePack; others the
messages of `pomogator.chat.v1`, whose translation costs more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.contract.chat import (
    fill_request,
    read_completion,
    read_request,
    to_completion_message,
)
from services.common.contract.chat_events import read_batch, to_batch_message
from services.common.contract.message_table import UntranslatableError
from services.common.json_errors import NOT_JSON
from services.domain.completion import Completion
from services.domain.events import Batch
from services.domain.spec import CompletionRequest


class RelayCodec(NamedTuple):
    """Encoders and decoders of what the frames of a relay carry."""

    encode_request: Callable[[CompletionRequest], bytes]
    parse_request: Callable[[bytes], Any]
    """First step of decoding. Raises DecodeError."""
    read_request: Callable[[Any], CompletionRequest]
    """Second step. Raises UntranslatableError."""
    encode_completion: Callable[[Completion], bytes]
    decode_completion: Callable[[bytes], Completion]
    encode_batch: Callable[[Batch], bytes]
    decode_batch: Callable[[bytes], Batch]
    """Returns the events that this version knows: possibly none."""


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(CompletionRequest).decode


def _encode_request(request: CompletionRequest) -> bytes:
    # What an edge has read of a request for a core in its own process is in the request.
    if request.raw is not None:
        request = replace(request, raw=replace(request.raw, members=None))
    elif request.texts is not None:
        request = replace(request, texts=None)
    return _encode(request)


def _read_request(data: bytes) -> CompletionRequest:
    try:
        request = _decode_request(data)
    except NOT_JSON as error:  # MessagePack has the same faults.
        raise UntranslatableError(str(error)) from None
    raw = request.raw
    if request.texts is not None or (raw is not None and raw.members is not None):
        raise UntranslatableError("The texts or members of a request are sent beside it.")
    return request


def _unchanged(data: bytes) -> bytes:
    return data


STRUCTS = RelayCodec(
    encode_request=_encode_request,
    parse_request=_unchanged,
    read_request=_read_request,
    encode_completion=_encode,
    decode_completion=msgspec.msgpack.Decoder(Completion).decode,
    encode_batch=_encode,
    decode_batch=msgspec.msgpack.Decoder(Batch).decode,
)
"""Structs of the domain in MessagePack."""


def _to_request_message(request: CompletionRequest) -> bytes:
    # Both methods have the same request.
    return fill_request(request, pb.StreamChatCompletionRequest()).SerializeToString()


def _from_response_message(data: bytes) -> Completion:
    return read_completion(pb.CreateChatCompletionResponse.FromString(data))


MESSAGES = RelayCodec(
    encode_request=_to_request_message,
    parse_request=pb.StreamChatCompletionRequest.FromString,
    read_request=read_request,
    encode_completion=lambda completion: to_completion_message(completion).SerializeToString(),
    decode_completion=_from_response_message,
    encode_batch=lambda batch: to_batch_message(batch).SerializeToString(),
    decode_batch=lambda data: read_batch(pb.StreamChatCompletionResponse.FromString(data)),
)
"""Messages of the contract."""


@cache
def structs_version() -> str:
    """Return the version of the structs."""
    return layout_digest(CompletionRequest, Completion, Batch)


def layout_digest(*types: object) -> str:
    """Return a digest of types: of the fields of all structs in them, in order."""
    described = repr(msgspec.inspect.multi_type_info(types))
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()
