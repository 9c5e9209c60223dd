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

_LIMITS = EdgeConfig()
"""The usual bounds of images. Edges, which may have others, bound the body."""


def _translation(decode: Translate) -> Translate:
    def translate(request: RawRequest) -> ChatCompletionSpec:
        try:
            return decode(request)
        except ApiError as error:
            facts = {PROVIDER_CODE: error.code} if error.code != error.row.code else None
            raise Failure(
                error.reason, error.message, param=error.param or "", facts=facts
            ) from None

    return translate


TRANSLATIONS: Mapping[RawApi, Translate] = {
    "anthropic_messages": _translation(
        lambda raw: anthropic_messages.decode(raw.body, _LIMITS, betas_of(raw)).spec
    ),
    "openai_responses": _translation(lambda raw: openai_responses.decode(raw.body, _LIMITS).spec),
}
"""The translations of all APIs."""

PROMPT_TRANSLATIONS: Mapping[RawApi, Translate] = {
    "anthropic_messages": _translation(
        lambda raw: anthropic_messages.decode_count(raw.body, _LIMITS)
    ),
    "openai_responses": _translation(lambda raw: openai_responses.decode_count(raw.body, _LIMITS)),
}
"""The translations of their requests for the tokens of a prompt."""
