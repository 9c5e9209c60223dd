"""Raw form: a request that passes as it is to targets that take it, translated to the others."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.common.off_loop import off_loop
from services.providers.base import Dialect, Notes, Target
from services.providers.raw_call import RawCall
from services.routing.completion_form import CompletionForm
from services.routing.request_form import EncodedRequest


class RawForm:
    """See `services.routing.request_form.RequestForm`."""

    def __init__(self, call: RawCall, completion: CompletionForm) -> None:
        """`completion` is the translated form, but for its spec."""
        self._call = call
        self._completion = completion
        self.dialects: Mapping[str, Dialect] = completion.dialects
        """The dialects by name."""

    async def encoded(self, target: Target, notes: Notes, *, stream: bool) -> EncodedRequest:
        """Return the request in the form of a target."""
        call = self._call
        if call.passes_to(target):
            lane, limited = call.lanes[target.channel.dialect], self._completion.for_encoder(target)
            request = lane.encode(call.facts, limited, notes)
            return request, lane.decoder(target, streamed=call.facts.stream)
        spec = await off_loop(call.size, call.translated)
        self._completion = msgspec.structs.replace(self._completion, spec=spec)
        return await self._completion.encoded(target, notes, stream=stream)
