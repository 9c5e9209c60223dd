"""Targets of one call, as its encoder and its decoder are told of them."""

from __future__ import annotations

from dataclasses import replace

from services.domain.spec import ChatCompletionSpec
from services.providers.base import Target
from services.routing.route_request import RouteRequest


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
