"""Requests to every gRPC method: random ones, and valid ones with a few changes."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import msgspec
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.embeddings.v1 import embedding_service_pb2 as embeddings
from pomogator.relay.v1 import relay_service_pb2 as relay

from gateway.config import EdgeConfig
from gateway.surfaces.openai_chat.decode_fields import decode_fields
from services.common.contract.chat import fill_request, read_request
from services.common.contract.relay_codec import STRUCTS
from services.domain.spec import CompletionRequest
from tests.stand.json_mutations import json_text, mutated
from tests.stand.listeners_stand import EMBEDDING_MODEL, MODELS
from tests.stand.planted_messages import MESSAGES
from tests.stand.planted_requests import REQUESTS
from tests.stand.planted_responses import RESPONSES
from tests.stand.random_messages import broken, mutate, random_message

BODIES: Mapping[pb.RawApi.ValueType, Mapping[str, Any]] = {
    pb.RAW_API_ANTHROPIC_MESSAGES: MESSAGES,
    pb.RAW_API_OPENAI_RESPONSES: RESPONSES,
}
RAW_SHARE, RANDOM_SHARE, BROKEN_SHARE = 0.3, 0.2, 0.1
CREDIT_SHARE = 0.1
"""Share of relayed calls that get credit, most of which ends their stream."""

ODD_VALUES: Mapping[type, Sequence[object]] = {
    bytes: (b"", b"{", b"[]", b"null", b'"x"', b'{"type":"x"}', b'{"a":"\\ud800"}', b'{"a":1e999}'),
    str: ("", "x", "\0", "é" * 300, "none", "\r\nx: y"),
    int: (0, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, 2**64 - 1),
    float: (0.0, math.nan, math.inf, -1e308),
    bool: (True, False),
    NoneType: (0, "", [], b"{}", {}),
}
"""Values in the place of those of a struct, by their type in MessagePack."""


@functools.cache
def completion(name: str) -> pb.CreateChatCompletionRequest:
    """A request of many kinds of parts, as a message."""
    spec = decode_fields(json.dumps(REQUESTS[name]).encode(), EdgeConfig()).spec
    return fill_request(CompletionRequest(spec=spec), pb.CreateChatCompletionRequest())


def struct_frames(chance: random.Random, names: Mapping[str, Sequence[str]]) -> bytes:
    """Return the bytes of a frame of a relay that starts a call, whose request is a struct."""
    message = completion(chance.choice(list(REQUESTS)))
    made = pb.CreateChatCompletionRequest.FromString(message.SerializeToString())
    made.spec.model = chance.choice(MODELS)
    if chance.random() < RAW_SHARE:
        made.raw.CopyFrom(_raw(chance))
    share = chance.choice((0.0, 0.005, 0.02))
    encoded = STRUCTS.encode_request(read_request(made))
    start = relay.CallStart(
        method=chance.choice(relay.RelayedMethod.values()[1:]),
        request=msgspec.msgpack.encode(_changed(msgspec.msgpack.decode(encoded), chance, share)),
        timeout_seconds=5.0,
        metadata={"authorization": names["authorization"][0]},
    )
    return relay.RelayRequest(frames=[relay.EdgeFrame(call_id=1, start=start)]).SerializeToString()


def _changed(value: Any, chance: random.Random, share: float) -> Any:
    """Return a decoded struct with a share of its values replaced."""
    if isinstance(value, list):
        return [_changed(each, chance, share) for each in value]
    if isinstance(value, dict):
        return {name: _changed(each, chance, share) for name, each in value.items()}
    return chance.choice(ODD_VALUES[type(value)]) if chance.random() < share else value


def request_bytes(
    method: MethodDescriptor, chance: random.Random, names: Mapping[str, Sequence[str]]
) -> bytes:
    """Return the bytes of a request to a method."""
    message = _message(method, chance, names)
    data: bytes = message.SerializeToString()
    return broken(data, chance) if chance.random() < BROKEN_SHARE else data


def _message(
    method: MethodDescriptor, chance: random.Random, names: Mapping[str, Sequence[str]]
) -> Any:
    kind = method.input_type
    fields: Mapping[str, Any] = kind.fields_by_name
    spec = fields["spec"].message_type.name if "spec" in fields else ""
    if chance.random() < RANDOM_SHARE:
        return random_message(kind, chance, names)
    if method.name == "Relay":
        return _frames(chance, names)
    made: Any = GetMessageClass(kind)()
    if spec == "ChatCompletionSpec":
        if "raw" in fields and chance.random() < RAW_SHARE:
            made.raw.CopyFrom(_raw(chance))
        else:
            made.spec.CopyFrom(completion(chance.choice(list(REQUESTS))).spec)
            made.spec.model = chance.choice(MODELS)
    elif spec == "EmbeddingSpec":
        made.spec.CopyFrom(embeddings.EmbeddingSpec(model=EMBEDDING_MODEL, texts=["a", "b"]))
    else:
        return random_message(kind, chance, names)
    mutate(made, chance, names)
    return made


def _raw(chance: random.Random) -> pb.RawRequest:
    api = chance.choice(list(BODIES))
    body = {**chance.choice(list(BODIES[api].values())), "model": chance.choice(MODELS)}
    if chance.random() < 0.7:
        body = mutated(body, chance)
    return pb.RawRequest(api=api, body=json_text(body))


def _frames(chance: random.Random, names: Mapping[str, Sequence[str]]) -> relay.RelayRequest:
    """Return frames of calls that start, get room and are cancelled, in any order."""
    found = relay.RelayRequest()
    for number in range(1, chance.randint(2, 4)):
        request = completion(chance.choice(list(REQUESTS)))
        mutate(
            made := pb.CreateChatCompletionRequest.FromString(request.SerializeToString()),
            chance,
            names,
        )
        start = relay.CallStart(
            method=relay.RelayedMethod.ValueType(chance.choice((1, 2, 3, 99))),
            request=chance.choice((made.SerializeToString(), b"\xff")),
            timeout_seconds=chance.choice((*[5.0] * 20, 0.0, -1.0, float("nan"), float("inf"))),
            metadata={"authorization": chance.choice(list(names["authorization"]))},
        )
        found.frames.add(call_id=chance.choice((number, number, 0, -1, 2**63 - 1)), start=start)
        if chance.random() < CREDIT_SHARE:
            found.frames.add(
                call_id=number,
                credit_bytes=chance.choice((0, -1, 1, 10**6, 2**63 - 1, -(2**63))),
            )
        if chance.random() < 0.2:
            found.frames.add(call_id=number, cancelled=chance.random() < 0.8)
    found.leaving = chance.random() < 0.3
    mutate(found, chance, names)
    return found
