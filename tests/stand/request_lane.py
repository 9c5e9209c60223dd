"""The way of a request to its provider without sockets: edge, contract, validation and dialect.

The stages are those of the service. What a request becomes is a body with notes, or a refusal.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Literal

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from gateway.config import EdgeConfig
from gateway.errors import REASONS, ApiError
from gateway.surfaces.anthropic_messages import decode as messages_request
from gateway.surfaces.openai_chat import decode as chat_request
from services.capabilities import CapabilityOverrides, lookup
from services.common.contract.chat import fill_request, read_request
from services.completions.validation import validate
from services.config import ChannelConfig, PassThrough
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.registry import DIALECTS

EDGE = EdgeConfig()
MODELS = {"openai": "house-1", "openrouter": "house-1", "anthropic": "claude-sonnet-4-5"}
"""The provider's name of the model, by dialect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A way to a provider."""

    dialect: str
    pass_through: PassThrough = "harmless"
    hop: Literal["none", "grpc"] = "none"
    """Whether the request travels as a message of the contract."""
    strict: bool = False

    def send(self, body: Any, *, messages: bool = False) -> Outcome:
        """Return what becomes of a request's JSON: of a chat completion, or of `messages`."""
        decode = messages_request.decode if messages else chat_request.decode
        try:
            return self.send_spec(decode(json.dumps(body).encode(), EDGE).spec)
        except ApiError as error:
            return Outcome(status=error.status)

    def send_spec(self, spec: ChatCompletionSpec) -> Outcome:
        """Return what becomes of a request."""
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

    def _target(self) -> Target:
        return _target(self.dialect, self.pass_through)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request."""

    status: int
    """200: it was sent."""
    body: bytes = b""
    """What the provider was sent."""
    notes: frozenset[tuple[str, str]] = frozenset()
    """Parameter and action of each note."""


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
