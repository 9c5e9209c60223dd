"""Failures of Responses before anything was sent."""

from __future__ import annotations

import json

import pytest

from gateway.errors import ApiError
from gateway.surfaces.openai_responses.errors import NAMES, render_error
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec


@pytest.mark.parametrize(("name", "own"), NAMES.items())
def test_fields_have_the_names_of_this_api(name: str, own: str) -> None:
    """The error's `param` and its message have them."""
    assert name in ChatCompletionSpec.__struct_fields__
    for param in (name, f"{name}[0].x", f"{name}.x"):
        error = ApiError(ErrorReason.INVALID_FIELD, f"`{param}` must be odd.", param=param)
        body = json.loads(render_error(error).body)["error"]
        assert (body["param"], body["message"]) == (own, f"`{own}` must be odd.")


def test_a_delay_of_weeks_is_left_out() -> None:
    """Codex would wait so long. A delay that the SDKs honour stays."""
    for delay, told in ((59.0, "59"), (3e6, None)):
        error = ApiError(ErrorReason.BUDGET_EXCEEDED, "No more.", retry_after_s=delay)
        headers = render_error(error).headers
        assert headers.get("Retry-After") == told
        assert headers["x-should-retry"] == "false"
