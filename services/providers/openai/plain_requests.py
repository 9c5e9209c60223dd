"""Encoder of plain requests (`services.domain.plain_texts`) to one target.

The target's rules are compiled once. The body equals that of `request.encode`, which encodes every
request whose values cannot be copied as they are, or that needs a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from services.domain.plain_texts import PLAIN_PARAMETERS
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Target, UpstreamRequest
from services.providers.openai.request import LONG_ANSWER_TOKENS, NAMES, PATH, STOPS_MAX
from services.providers.translate import output_limits, parameters
from services.providers.translate.history import reasoning
from services.providers.translate.thinking import ThinkingPlan
from services.providers.translate.unseen_reasoning import hidden_tokens

_values = attrgetter("max_tokens", *PLAIN_PARAMETERS)
_UNSET: Sequence[object] = (None, "", [])


class PlainRequests:
    """Encoder of plain requests to one target. See `services.providers.base.PlainEncoder`."""

    __slots__ = ("_names", "_ranges", "_reasons", "_roles", "_target")

    def __init__(self, target: Target) -> None:
        capabilities = target.capabilities
        self._target = target
        self._reasons = capabilities.thinking_default != "off"
        self._names = [output_limits.output_limit_name(target), *_names(target, self._reasons)]
        ranges = {**capabilities.ranges, **(capabilities.thinking_ranges if self._reasons else {})}
        most = float(output_limits.longest_answer(capabilities))
        self._ranges = [("max_tokens", (0.0, most))]
        self._ranges += [(name, each) for name, each in ranges.items() if name in PLAIN_PARAMETERS]
        self._roles = {"system": "system", "user": "user"}
        if capabilities.developer_role:
            self._roles["developer"] = "developer"
        if not reasoning.takes_text(target):
            self._roles["assistant"] = "assistant"

    def encode(
        self, spec: ChatCompletionSpec, texts: Sequence[str], *, stream: bool
    ) -> UpstreamRequest | None:
        """Return the request. None: `request.encode` must encode it."""
        if not self._fits(spec):
            return None
        target = self._target
        messages: list[dict[str, str]] = []
        for message, text in zip(spec.messages, texts, strict=True):
            role = self._roles.get(message.role)
            if role is None:
                return None
            messages.append({"role": role, "content": text})
        body: dict[str, object] = {"model": target.model, "messages": messages}
        for name, value in zip(self._names, _values(spec), strict=True):
            if value not in _UNSET:
                if not name:
                    return None
                body[name] = value
        limit = spec.max_tokens
        streamed = stream or self._reasons or (limit or 0) > LONG_ANSWER_TOKENS
        body["stream"] = streamed
        if streamed and target.channel.quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
        hidden = 0
        if self._reasons:
            plan = ThinkingPlan(max_tokens=limit, active=True)
            hidden = hidden_tokens(spec, plan, target.capabilities)
        return UpstreamRequest(
            path=PATH, body=msgspec.json.encode(body), streamed=streamed, thinking_tokens=hidden
        )

    def _fits(self, spec: ChatCompletionSpec) -> bool:
        """Whether each value may be sent as it is."""
        for name, (least, most) in self._ranges:
            value = getattr(spec, name)
            if value is not None and not least <= value <= most:
                return False
        return len(spec.stop) <= STOPS_MAX


def plain_requests(target: Target) -> PlainRequests | None:
    """Return the encoder of plain requests to a target.

    None: the target has rules on the order of messages, or a model name that selects reasoning.
    """
    capabilities = target.capabilities
    takes_any_order = capabilities.late_instructions == "any" and capabilities.turns == "any"
    return PlainRequests(target) if takes_any_order and not target.thinking_by_name else None


def _names(target: Target, reasons: bool) -> Sequence[str]:
    """Return the provider's names of plain parameters. An empty name: it may not be sent."""
    renames = target.channel.quirks.renames
    # Of two parameters that exclude each other, one may be sent.
    seconds = {second for _, second in target.capabilities.excludes}
    return [
        renames.get(name, NAMES[name])
        if name not in seconds and parameters.is_supported(name, NAMES, target, thinking=reasons)
        else ""
        for name in PLAIN_PARAMETERS
    ]
