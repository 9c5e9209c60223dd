"""Translations of raw requests, by the surfaces that decode their APIs.

An edge apart sends such requests as they are, so that a body is decoded by the service alone, and
only where a channel needs it in another form.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.anthropic_messages import decode as anthropic_messages
from gateway.surfaces.openai_responses import decode as openai_responses
from services.common.call_names import PROVIDER_CODE
from services.completions.raw_calls import Translate
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.anthropic.raw_request import betas_of


def _messages(request: RawRequest) -> ChatCompletionSpec:
    try:
        return anthropic_messages.decode(request.body, _LIMITS, betas_of(request)).spec
    except ApiError as error:
        raise _to_failure(error) from None


def _messages_prompt(request: RawRequest) -> ChatCompletionSpec:
    try:
        return anthropic_messages.decode_count(request.body, _LIMITS)
    except ApiError as error:
        raise _to_failure(error) from None


def _responses(request: RawRequest) -> ChatCompletionSpec:
    try:
        return openai_responses.decode(request.body, _LIMITS).spec
    except ApiError as error:
        raise _to_failure(error) from None


def _responses_prompt(request: RawRequest) -> ChatCompletionSpec:
    try:
        return openai_responses.decode_count(request.body, _LIMITS)
    except ApiError as error:
        raise _to_failure(error) from None


TRANSLATIONS: Mapping[RawApi, Translate] = {
    "anthropic_messages": _messages,
    "openai_responses": _responses,
}
"""The translations of all APIs."""

PROMPT_TRANSLATIONS: Mapping[RawApi, Translate] = {
    "anthropic_messages": _messages_prompt,
    "openai_responses": _responses_prompt,
}
"""The translations of their requests for the tokens of a prompt."""

_LIMITS = EdgeConfig()
"""The usual bounds of images. Edges, which may have others, bound the body."""


def _to_failure(error: ApiError) -> Failure:
    facts = {PROVIDER_CODE: error.code} if error.code != error.row.code else None
    return Failure(error.reason, error.message, param=error.param or "", facts=facts)
