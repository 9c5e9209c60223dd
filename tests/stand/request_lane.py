"""The way of a request to its provider without sockets: edge, contract, validation and dialect.

The stages are those of the service. A request becomes a body with notes, or a refusal.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from gateway.config import EdgeConfig
from gateway.errors import REASONS, ApiError
from gateway.surfaces.anthropic_messages import decode as messages_request
from gateway.surfaces.base import SurfaceRequest
from gateway.surfaces.openai_chat.decode_fields import decode_fields
from gateway.surfaces.openai_responses import decode as responses_request
from services.capabilities import CapabilityOverrides, lookup
from services.common.contract.chat import fill_request, read_request
from services.completions.validation import validate
from services.config import ChannelConfig, PassThrough
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.registry import DIALECTS, RAW_LANES

EDGE = EdgeConfig()
Api: TypeAlias = Literal["chat", "messages", "responses"]
DECODERS: Mapping[Api, Callable[[bytes, EdgeConfig], SurfaceRequest]] = {
    "chat": decode_fields,
    "messages": messages_request.decode,
    "responses": responses_request.decode,
}
RAW_APIS: Mapping[Api, RawApi] = {
    "messages": "anthropic_messages",
    "responses": "openai_responses",
}
"""APIs whose requests may pass as they are."""
MODELS = {
    "openai": "house-1",
    "openai-responses": "gpt-5.6-terra",
    "openrouter": "house-1",
    "anthropic": "claude-sonnet-4-5",
}
"""The provider's name of the model, by dialect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A way to a provider."""

    dialect: str
    pass_through: PassThrough = "harmless"
    hop: Literal["none", "grpc"] = "none"
    """Whether the request travels as a message of the contract."""
    strict: bool = False

    def send(self, body: Any, *, api: Api = "chat", raw: bool = False) -> Outcome:
        """Return the outcome of a request's JSON, in the form of an API.

        With `raw` it passes as it is, where the dialect takes it so.
        """
        data = json.dumps(body).encode()
        passed = self._passed(data, api) if raw else None
        if passed is not None:
            return passed
        try:
            return self.send_spec(DECODERS[api](data, EDGE).spec)
        except ApiError as error:
            return Outcome(status=error.status)

    def send_spec(self, spec: ChatCompletionSpec) -> Outcome:
        """Return the outcome of a request."""
        notes = Notes(strict=self.strict)
        try:
            if self.hop == "grpc":
                spec = over_grpc(spec)
            validate(spec)
            request = DIALECTS[self.dialect].encode(spec, self._target(), notes)
        except Failure as failure:
            return Outcome(status=REASONS[failure.reason].http)
        said = frozenset((note.param, note.action) for note in notes.all)
        return Outcome(status=200, body=request.body, notes=said)

    def _passed(self, body: bytes, api: Api) -> Outcome | None:
        """Return the outcome of a request that passes as it is. None: it is translated."""
        lane, target = RAW_LANES.get(self.dialect), self._target()
        if lane is None or lane.api != RAW_APIS.get(api):
            return None
        notes = Notes(strict=self.strict)
        try:
            facts = lane.read(RawRequest(api=lane.api, body=body))
            if not lane.takes(facts, target):
                return None
            request = lane.encode(facts, target, notes)
        except Failure as failure:
            return Outcome(status=REASONS[failure.reason].http)
        said = frozenset((note.param, note.action) for note in notes.all)
        return Outcome(status=200, body=request.body, notes=said)

    def _target(self) -> Target:
        return _target(self.dialect, self.pass_through)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of a request."""

    status: int
    """200: it was sent."""
    body: bytes = b""
    """The body that the provider was sent."""
    notes: frozenset[tuple[str, str]] = frozenset()
    """Parameter and action of each note."""


def random_lane(chance: random.Random) -> Lane:
    """Return any way to a provider."""
    return Lane(
        dialect=chance.choice(sorted(MODELS)),
        pass_through=chance.choice(("harmless", True, False)),
        hop=chance.choice(("none", "grpc")),
        strict=chance.random() < 0.2,
    )


def over_grpc(spec: ChatCompletionSpec) -> ChatCompletionSpec:
    """Return the spec as a service reads it from the message that an edge or a stub sends."""
    message = fill_request(CompletionRequest(spec=spec), pb.CreateChatCompletionRequest())
    received = pb.CreateChatCompletionRequest.FromString(message.SerializeToString())
    return read_request(received).spec


@functools.cache
def _target(dialect: str, pass_through: PassThrough) -> Target:
    channel = ChannelConfig(
        name="a", dialect=dialect, base_url="http://127.0.0.1:9/v1", pass_through=pass_through
    )
    overrides = (
        CapabilityOverrides() if dialect == "anthropic" else CapabilityOverrides(images="yes")
    )
    return Target(
        channel=channel,
        model=MODELS[dialect],
        public_model="m",
        capabilities=lookup(MODELS[dialect], overrides, dialect),
    )
