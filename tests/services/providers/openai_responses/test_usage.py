"""Usage of OpenAI's Responses, which is read in one step where it has OpenAI's members alone."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest

from services.domain.usage import Usage
from services.providers.openai_responses.response_members import usage_of

FIGURES = (0, 1, 7, 20)


def usage(found: object) -> Usage | None:
    """The usage of a report."""
    return usage_of(msgspec.Raw(json.dumps(found).encode()))


@pytest.mark.parametrize("details", [False, True])
def test_a_plain_report_is_read_as_one_with_more_members(details: bool) -> None:
    """Whichever figures it has, plausible or not."""
    for prompt, completion, beside, cached, reasoning in itertools.product(FIGURES, repeat=5):
        plain: dict[str, object] = {
            "input_tokens": prompt,
            "output_tokens": completion,
            "total_tokens": prompt + completion + beside,
        }
        if details:
            plain |= {"input_tokens_details": {"cached_tokens": cached}}
            plain |= {"output_tokens_details": {"reasoning_tokens": reasoning}}
        other = usage({**plain, "other": 1})
        known = None if other is None else msgspec.structs.replace(other, extra_json=b"")
        assert usage(plain) == known, plain


@pytest.mark.parametrize("tokens", [10**9, 10**9 + 1, -1, 2.5, 3.0, None, "12"])
def test_odd_figures_are_read_alike(tokens: object) -> None:
    """With members that only other providers report, and without."""
    plain = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
    other = usage({**plain, "other": 1})
    known = None if other is None else msgspec.structs.replace(other, extra_json=b"")
    assert usage(plain) == known


def test_members_that_are_not_read_are_kept() -> None:
    """Those of the details, too."""
    found = usage(
        {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 0, "newly_made": 3},
            "output_tokens": 4,
            "total_tokens": 13,
        }
    )
    assert found is not None
    assert json.loads(found.extra_json) == {"input_tokens_details": {"newly_made": 3}}
