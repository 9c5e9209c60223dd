"""Completion form: a completion in the form of each target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from services.common.off_loop import off_loop
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Dialect, Notes, PlainRequest, Target, UpstreamRequest
from services.providers.fault_location import locate
from services.routing.request_form import EncodedRequest


class CompletionForm(msgspec.Struct, frozen=True, kw_only=True):
    """The request for a completion. See `services.routing.request_form.RequestForm`."""

    spec: ChatCompletionSpec
    """The completion."""
    dialects: Mapping[str, Dialect]
    """Dialects by name."""
    size: int = 0
    """Bytes of the request that are read."""
    limits_output: bool = False
    """Whether every request needs an output limit, since the caller's money is limited."""
    sends_provider_tools: bool = True
    """Whether tools may be sent that a provider bills besides tokens."""
    restored: Callable[[ChatCompletionSpec, Target], ChatCompletionSpec] | None = None
    """Returns the request with the reasoning that its messages lack, if the target can read it.
    None: nothing is remembered."""
    marked: Callable[[ChatCompletionSpec, Target, Notes], ChatCompletionSpec] | None = None
    """Returns the request with cache marks, if the target takes them. None: it gets none."""
    plain: PlainRequest | None = None
    """The same as a plain request. None: it is not plain, or too large for the event loop."""

    async def encoded(self, target: Target, notes: Notes, *, stream: bool) -> EncodedRequest:
        """Return the request in the form of a target.

        Raises Failure, whose `param` is the path of what the target has no form for.
        """
        request = None
        if self.plain is not None and target.plain is not None:
            request = target.plain.encode(self.plain, notes, stream=stream)
        if request is None:
            request = await off_loop(self.size, self._encoded, target, notes, stream=stream)
        thinking = self.spec.thinking
        details = thinking is not None and thinking.reasoning_details
        decoder = self.dialects[target.channel.dialect].decoder(target, details=details)
        return request, decoder

    def for_encoder(self, target: Target) -> Target:
        """Return the target of an encoder, with the limits that the caller's balance sets."""
        limits_output = self.limits_output and self.spec.max_tokens is None
        sends_tools = self.sends_provider_tools
        if not limits_output and sends_tools is target.sends_provider_tools:
            return target
        return replace(target, limits_output=limits_output, sends_provider_tools=sends_tools)

    def _encoded(self, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
        dialect, limited = self.dialects.get(target.channel.dialect), self.for_encoder(target)
        if dialect is None:
            message = "The channel of this model serves embeddings only."
            raise Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param="model")
        try:
            spec = self.spec if self.restored is None else self.restored(self.spec, target)
            if self.marked is not None:
                spec = self.marked(spec, target, notes)
            return dialect.encode(spec, limited, notes, stream=stream)
        except Failure as refusal:
            locate(refusal, self.spec, dialect, limited, strict=notes.strict)
            raise
