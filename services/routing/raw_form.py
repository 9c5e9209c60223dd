"""Raw form: a request that passes as it is to targets that take it, translated to the others."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.common.off_loop import off_loop
from services.providers.base import Decoder, Dialect, Notes, Target, UpstreamRequest
from services.providers.raw_call import RawCall
from services.routing.completion_form import CompletionForm


class RawForm:
    """See `services.routing.request_form.RequestForm`."""

    def __init__(self, call: RawCall, completion: CompletionForm) -> None:
        """`completion` is the translated form, but for its spec."""
        self._call = call
        self._completion = completion
        self._is_raw = False
        self.dialects: Mapping[str, Dialect] = completion.dialects
        """The dialects by name."""

    async def encoded(self, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
        """Return the request in the form of a target."""
        call = self._call
        self._is_raw = call.passes_to(target)
        if self._is_raw:
            limited = self._completion.for_encoder(target)
            return call.lanes[target.channel.dialect].encode(call.facts, limited, notes)
        spec = await off_loop(call.size, call.translated)
        self._completion = msgspec.structs.replace(self._completion, spec=spec)
        return await self._completion.encoded(target, notes, stream=stream)

    def decoder(self, target: Target) -> Decoder:
        """Return the decoder of an answer to the request that was encoded last."""
        if not self._is_raw:
            return self._completion.decoder(target)
        lane = self._call.lanes[target.channel.dialect]
        return lane.decoder(target, streamed=self._call.facts.stream)
