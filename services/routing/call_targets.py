"""Targets of one call, as its encoder and its decoder are told of them, and its encoded request."""

from __future__ import annotations

from dataclasses import replace

from services.common.off_loop import off_loop
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.fault_location import locate
from services.routing.route_request import RouteRequest


async def encoded(
    wanted: RouteRequest, dialect: Dialect, target: Target, notes: Notes, *, stream: bool
) -> UpstreamRequest:
    """Return the request in the form of a target.

    Raises Failure, whose `param` is the path of what the target has no form for.
    """
    return await off_loop(wanted.size, _encoded, wanted, dialect, target, notes, stream=stream)


def _encoded(
    wanted: RouteRequest, dialect: Dialect, target: Target, notes: Notes, *, stream: bool
) -> UpstreamRequest:
    limited = for_encoder(target, wanted)
    try:
        spec = wanted.spec if wanted.restored is None else wanted.restored(wanted.spec, target)
        return dialect.encode(spec, limited, notes, stream=stream)
    except Failure as refusal:
        locate(refusal, wanted.spec, dialect, limited, strict=wanted.strict)
        raise


def for_encoder(target: Target, wanted: RouteRequest) -> Target:
    """Return the target of an encoder, which is told what the caller's money does not cover."""
    limits_output = wanted.limits_output and wanted.spec.max_tokens is None
    if not limits_output and wanted.sends_provider_tools:
        return target
    sends_tools = wanted.sends_provider_tools
    return replace(target, limits_output=limits_output, sends_provider_tools=sends_tools)


def for_decoder(target: Target, spec: ChatCompletionSpec) -> Target:
    """Return the target of a decoder, which is told what the answer is to have."""
    if spec.thinking is None or not spec.thinking.reasoning_details:
        return target
    return replace(target, reasoning_details=True)
