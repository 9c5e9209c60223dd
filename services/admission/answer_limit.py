"""Bound of the tokens of an answer, for the hold: the limit that a request is sent with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Self

import msgspec

from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target
from services.providers.translate.output_limits import default_limit
from services.providers.translate.thinking import plan


def answer_limit(spec: ChatCompletionSpec, target: Target) -> int:
    """Return the most tokens of one choice, reasoning included, at a target.

    It is the limit that the encoder sends, which may be higher than `max_tokens`: some models take
    at least a minimum of reasoning on top, and others have a least limit.
    """
    capabilities = target.capabilities
    thinking = plan(spec, target, Notes())
    limit = thinking.max_tokens or default_limit(capabilities, thinking.budget_tokens)
    return max(limit, capabilities.min_max_tokens)


class AnswerBound(msgspec.Struct, frozen=True):
    """Bound of the tokens of an answer of any of some targets."""

    targets: Sequence[Target]
    usual: int
    """The highest `answer_limit` of a request without a limit that does not ask for reasoning."""
    least: int
    """The highest one of such a request with the lowest limit."""
    most: int
    """The highest one of all such requests. A limit between both is sent as it is."""
    reasons_by_name: bool
    """Whether a target reasons unless the request says not to."""

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Self:
        """Compile the bound."""
        usual, least, most = (
            max([answer_limit(ChatCompletionSpec(model="", max_tokens=limit), each)
                 for each in targets])
            for limit in (None, 1, sys.maxsize)
        )  # fmt: skip
        by_name = any(each.thinking_by_name for each in targets)
        return cls(targets, usual, least, most, by_name)

    def tokens(self, spec: ChatCompletionSpec) -> int:
        """Return the most tokens that all choices of a request together may take."""
        if (
            spec.reasoning_effort
            or spec.other_reasoning_effort
            or spec.thinking is not None
            or self.reasons_by_name
        ):
            tokens = max([answer_limit(spec, each) for each in self.targets])
        else:
            limit = spec.max_tokens
            tokens = min(max(limit, self.least), self.most) if limit else self.usual
        return tokens if spec.n is None else tokens * (spec.n or 1)
