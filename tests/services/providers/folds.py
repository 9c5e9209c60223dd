"""Comparison of whole answers with folded streams."""

from __future__ import annotations

import json

from services.completions.fold import Fold
from services.domain.completion import Completion, WholeAnswer
from services.domain.events import Event, Started
from services.domain.usage import Usage


def assert_equal(answer: WholeAnswer, events: list[Event]) -> None:
    """Check that a whole answer is the fold of `events`, and of its own events."""
    for completion in (_folded(events), _folded(answer.events())):
        assert completion.choices == answer.choices
        assert completion.usage == (answer.usage or Usage())
        assert completion.service_tier == answer.service_tier
        assert completion.system_fingerprint == answer.system_fingerprint
        assert _members(completion.extra_json) == _members(answer.extra_json)


def _members(extra_json: bytes) -> object:
    return json.loads(extra_json or b"{}")


def _folded(events: list[Event]) -> Completion:
    fold = Fold()
    fold.add([Started(completion_id="", model="", create_time_s=0), *events])
    return fold.answer
