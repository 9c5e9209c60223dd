"""Response object: all members of a response, whatever became of it.

Each member is always there, as strict clients demand; what is unknown is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from gateway.surfaces.openai_responses.namespaces import Names
from gateway.surfaces.openai_responses.output_item import Json
from gateway.surfaces.openai_responses.reasoning_item import Shown
from gateway.surfaces.other_members import with_others
from services.domain.usage import Usage

ResponseStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed"]

DEFAULTS: Mapping[str, object] = {
    "background": False,
    "completed_at": None,
    "conversation": None,
    "error": None,
    "frequency_penalty": 0.0,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
}
"""Members that a request may set, and those that most responses do not have."""

INCOMPLETE: Mapping[str, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
"""Reasons of an incomplete response, by the contract's reasons of an end."""


class AnswerForm(Struct, frozen=True, kw_only=True):
    """How the answer to a request is rendered."""

    repeated: Mapping[str, object] = {}
    """Members of the request that the response repeats."""
    shown: Shown = Shown(text=False, seals=False)
    names: Names = {}
    """Names of tools in namespaces."""
    logprobs: bool = False
    """Whether the text has log probabilities."""
    model: str = ""
    """The model as requested, for an answer that fails before it begins."""


def response_id(completion_id: str) -> str:
    """Return the ID of a response."""
    return f"resp_{completion_id.removeprefix('chatcmpl-')}"


def usage_members(usage: Usage) -> Json:
    """Return the usage of a response."""
    members: Json = {
        "input_tokens": usage.prompt_token_count,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_token_count,
            "cache_write_tokens": usage.cache_write_token_count,
        },
        "output_tokens": usage.completion_token_count,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_token_count},
        "total_tokens": usage.total_token_count,
    }
    return with_others(members, usage.extra_json)


class ResponseMembers(Struct, kw_only=True):
    """Members of one response so far."""

    form: AnswerForm
    id: str
    model: str
    created_at: int

    def object(
        self, status: ResponseStatus, output: Sequence[Json], members: Mapping[str, object]
    ) -> Json:
        """Return the response with this output. `members` are those that its end gives it."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "model": self.model,
            "output": output,
            **DEFAULTS,
            **self.form.repeated,
            **members,
        }
