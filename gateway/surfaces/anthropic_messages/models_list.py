"""Models in Anthropic's form, in pages.

https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from multidict import MultiMapping

from gateway.errors import invalid
from gateway.surfaces.models.model_members import members_of
from services.domain.model import Model

EFFORT_WORDS = ("low", "medium", "high", "xhigh", "max")
"""Efforts of Anthropic's API."""

PAGE_SIZE = 20
"""Models in a page where the client names no number."""
PAGE_SIZE_MAX = 1_000


class AnthropicModels:
    """The form of a page of models, and of one."""

    def render_list(self, models: Sequence[Model], query: MultiMapping[str]) -> bytes:
        """Render a page: the first, or that after `after_id`, or before `before_id`.

        Raises ApiError: `limit` is not in its range, or there is no such ID.
        """
        limit = _limit(query.get("limit"))
        names = [model.name for model in models]
        begin, end = 0, len(models)
        if (after := query.get("after_id")) is not None:
            begin = _place("after_id", after, names) + 1
        if (before := query.get("before_id")) is not None:
            end = _place("before_id", before, names)
            begin = max(begin, end - limit)
        page = models[begin : min(end, begin + limit)]
        more = begin > 0 if before is not None else begin + len(page) < len(models)
        return msgspec.json.encode(
            {
                "data": [_members(model) for model in page],
                "has_more": more,
                "first_id": page[0].name if page else None,
                "last_id": page[-1].name if page else None,
            }
        )

    def render_model(self, model: Model) -> bytes:
        """Render a model."""
        return msgspec.json.encode(_members(model))


def _members(model: Model) -> dict[str, object]:
    """Return a model in this form, beside the members that it has in every form."""
    return members_of(model) | {
        "type": "model",
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.create_time_s, UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        "lifecycle": "active",
        "line": None,
        "max_input_tokens": model.context_token_count or None,
        "max_tokens": model.max_output_token_count or None,
        "capabilities": _capabilities(model),
        "deprecated_at": None,
        "retires_at": None,
    }


def _capabilities(model: Model) -> dict[str, object]:
    """Return the capabilities that the gateway knows. Features of Anthropic alone are false."""
    inputs, efforts = model.input_modalities, model.reasoning_efforts
    reasons = _supported(model.reasons)
    return {
        "batch": _supported(False),
        "citations": _supported(False),
        "code_execution": _supported(False),
        "context_management": _supported(False),
        "effort": _supported(bool(efforts))
        | {word: _supported(word in efforts) for word in EFFORT_WORDS},
        "image_input": _supported("image" in inputs),
        "pdf_input": _supported("file" in inputs),
        "server_tools": _supported(False)
        | {"code_execution": _supported(False), "web_search": _supported(False)},
        "structured_outputs": _supported("structured_outputs" in model.supported_parameters),
        "thinking": reasons
        | {
            "types": {
                "adaptive": reasons,
                "between_tools": _supported(False),
                "disabled": _supported(not model.always_reasons),
                "enabled": reasons,
            }
        },
    }


def _supported(value: bool) -> dict[str, object]:
    return {"supported": value}


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_SIZE
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:5]) <= PAGE_SIZE_MAX):
        raise invalid("limit", f"Invalid limit: expected a number from 1 to {PAGE_SIZE_MAX}.")
    return int(text[:5])


def _place(param: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise invalid(param, f"Invalid {param}: there is no such model.")
    return names.index(name)
