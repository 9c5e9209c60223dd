"""Encoder of plain requests (`services.domain.plain_texts`) to one target.

The target's rules are compiled once. The body equals that of the dialect's `encode`, which encodes
every request whose values cannot be copied as they are, or that needs a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from operator import attrgetter, ne
from types import MappingProxyType
from typing import Any

import msgspec

from services.domain.plain_texts import PLAIN_PARAMETERS
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, PlainRequest, Target, UpstreamRequest
from services.providers.openai.request import LONG_ANSWER_TOKENS, NAMES, PATH, STOPS_MAX
from services.providers.translate import output_limits, parameters
from services.providers.translate.history import reasoning
from services.providers.translate.thinking import ThinkingPlan
from services.providers.translate.unseen_reasoning import hidden_tokens

_PARAMETERS = ("max_tokens", *PLAIN_PARAMETERS)
_role = attrgetter("role")
_values = attrgetter(*_PARAMETERS)
_UNSET = _values(ChatCompletionSpec(model=""))

_Range = tuple[float, float]


class _Message(msgspec.Struct):
    role: str
    content: str


class PlainRequests:
    """Encoder of plain requests to one target. See `services.providers.base.PlainEncoder`."""

    __slots__ = ("_limited", "_model", "_parameters", "_reasons", "_roles", "_streamed", "_whole")

    def __init__(
        self, target: Target, names: Mapping[str, str], settings: Mapping[str, object]
    ) -> None:
        """`names` are the dialect's parameters; `settings` are members of every body."""
        capabilities = target.capabilities
        self._model, self._limited = target.model, replace(target, limits_output=True)
        self._whole: dict[str, object] = {**settings, "stream": False}
        self._streamed: dict[str, object] = {**settings, "stream": True}
        if target.channel.quirks.stream_usage:
            self._streamed["stream_options"] = {"include_usage": True}
        self._reasons = capabilities.thinking_default != "off"
        theirs = [output_limits.output_limit_name(target), *_names(target, names, self._reasons)]
        ranges: dict[str, _Range] = {
            **capabilities.ranges,
            **(capabilities.thinking_ranges if self._reasons else {}),
            "max_tokens": (0.0, float(output_limits.longest_answer(capabilities))),
        }
        self._parameters: list[tuple[str, _Range | None]] = [
            (name, ranges.get(ours)) for ours, name in zip(_PARAMETERS, theirs, strict=True)
        ]
        self._roles = {"system", "user"}
        if capabilities.developer_role:
            self._roles.add("developer")
        if not reasoning.takes_text(target):
            self._roles.add("assistant")

    def encode(self, asked: PlainRequest, notes: Notes, *, stream: bool) -> UpstreamRequest | None:
        """Return the request. None: the dialect's `encode` must encode it."""
        spec = asked.spec
        roles = list(map(_role, spec.messages))
        if not self._roles.issuperset(roles):
            return None
        messages = list(map(_Message, roles, asked.texts))
        body: dict[str, object] = {"model": self._model, "messages": messages}
        limit = spec.max_tokens
        if asked.limits_output and limit is None:
            self._add_limit(body, notes)
        values = _values(spec)
        if values != _UNSET and not self._add_parameters(values, body):
            return None
        if len(spec.stop) > STOPS_MAX:
            return None
        streamed = stream or self._reasons or (limit or 0) > LONG_ANSWER_TOKENS
        body |= self._streamed if streamed else self._whole
        hidden = 0
        if self._reasons:
            plan = ThinkingPlan(max_tokens=limit, active=True)
            hidden = hidden_tokens(spec, plan, self._limited.capabilities)
        return UpstreamRequest(
            path=PATH, body=msgspec.json.encode(body), streamed=streamed, thinking_tokens=hidden
        )

    def _add_limit(self, body: dict[str, object], notes: Notes) -> None:
        limit = output_limits.forced_limit(self._limited, 0, notes)
        if limit is not None:
            body[output_limits.output_limit_name(self._limited)] = limit

    def _add_parameters(self, values: Sequence[Any], body: dict[str, object]) -> bool:
        """Add the parameters that are set. Returns whether each may be sent as it is."""
        given = zip(self._parameters, values, strict=True)
        for (name, bounds), value in compress(given, map(ne, values, _UNSET)):
            if not name or (bounds is not None and not bounds[0] <= value <= bounds[1]):
                return False
            body[name] = value
        return True


def plain_requests(
    target: Target,
    names: Mapping[str, str] = NAMES,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> PlainRequests | None:
    """Return the encoder of plain requests to a target. See `PlainRequests`.

    None: the target has rules on the order of messages, or a model name that selects reasoning.
    """
    capabilities = target.capabilities
    takes_any_order = capabilities.late_instructions == "any" and capabilities.turns == "any"
    if target.thinking_by_name or not takes_any_order:
        return None
    return PlainRequests(target, names, settings)


def _names(target: Target, names: Mapping[str, str], reasons: bool) -> Sequence[str]:
    """Return the provider's names of plain parameters. An empty name: it may not be sent."""
    renames = target.channel.quirks.renames
    # Of two parameters that exclude each other, one may be sent.
    seconds = {second for _, second in target.capabilities.excludes}
    return [
        renames.get(name, names[name])
        if name not in seconds and parameters.is_supported(name, names, target, thinking=reasons)
        else ""
        for name in PLAIN_PARAMETERS
    ]
