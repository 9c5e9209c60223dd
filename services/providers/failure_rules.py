"""Tables that map providers' statuses, codes and phrases to reasons.

The phrases are those of OpenAI, Anthropic, Google, xAI, Mistral, DeepSeek, Groq, Alibaba, Azure,
OpenRouter, vLLM, llama.cpp and Ollama, as recorded and as quoted in public reports. A phrase is in
a table only if it is unambiguous: "credit" alone is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.domain.error_reason import ErrorReason
from services.providers.overflow_phrases import GAP, OVERFLOWS, RATES

_AUTH = ErrorReason.UPSTREAM_AUTH_FAILED
_BAD = ErrorReason.UPSTREAM_BAD_RESPONSE
_CONTEXT = ErrorReason.CONTEXT_LENGTH_EXCEEDED
_ERROR = ErrorReason.UPSTREAM_ERROR
_FILTERED = ErrorReason.CONTENT_FILTERED
_FETCH = ErrorReason.IMAGE_FETCH_FAILED
_IMAGE = ErrorReason.INVALID_IMAGE
_INVALID = ErrorReason.UPSTREAM_INVALID_REQUEST
_LARGE = ErrorReason.REQUEST_TOO_LARGE
_MODEL = ErrorReason.MODEL_NOT_FOUND
_OVERLOADED = ErrorReason.UPSTREAM_OVERLOADED
_RATE = ErrorReason.UPSTREAM_RATE_LIMITED
_TIMEOUT = ErrorReason.UPSTREAM_TIMEOUT
_UNSUPPORTED = ErrorReason.UNSUPPORTED_FEATURE

STATUSES: Mapping[int, ErrorReason] = {
    300: _BAD,  # Redirects are not followed: they could send our key anywhere.
    400: _INVALID,
    401: _AUTH,
    402: _AUTH,
    403: _AUTH,  # The account may not use the model. Filtered content is found by its phrases.
    404: _MODEL,
    405: _BAD,
    408: _TIMEOUT,
    410: _MODEL,
    413: _LARGE,
    424: _ERROR,
    429: _RATE,
    498: _OVERLOADED,  # Groq: no capacity in the flex tier.
    499: _ERROR,  # Google: cancelled.
    500: _ERROR,
    503: _OVERLOADED,
    504: _TIMEOUT,
    522: _TIMEOUT,  # Cloudflare: no connection in time; 524: no answer in time.
    524: _TIMEOUT,
    529: _OVERLOADED,  # Anthropic.
}
"""Reason by status. An unlisted status has the reason of its hundred, as 418 that of 400."""

CODES: Mapping[str, ErrorReason] = {
    name: reason
    for reason, names in {
        _AUTH: (
            "account_deactivated access_denied access_terminated arrearage authentication_error "
            "billing_error billing_hard_limit_reached billing_not_active insufficient_balance "
            "insufficient_credits insufficient_quota invalid_api_key invalid_authentication "
            "key_limit_exceeded payment_required permission_denied permission_error "
            "authentication unauthenticated unauthorized"
        ),
        _CONTEXT: (
            "1261 336007 336103 context_length_exceeded context_too_long context_window_exceeded "
            "exceed_context_size_error input_too_long max_context_length_exceeded "
            "model_context_window_exceeded model_max_prompt_tokens_exceeded prompt_too_long "
            "token_limit_exceeded tokens_limit_reached"
        ),
        _FILTERED: (
            "content_filter content_policy_violation data_inspection_failed moderation_blocked "
            "refusal responsibleaipolicyviolation safety_violation"
        ),
        _IMAGE: (
            "empty_image_file image_content_policy_violation image_file_too_large "
            "image_parse_error image_too_large "
            "image_too_small invalid_base64_image invalid_image invalid_image_format "
            "invalid_image_mode invalid_image_url unsupported_image_format "
            "unsupported_image_media_type"
        ),
        _FETCH: (
            "failed_to_download_image image_download_failed image_file_not_found image_not_found"
        ),
        _LARGE: "payload_too_large request_too_large",
        _MODEL: (
            "deploymentnotfound deployment_not_found invalid_model model_decommissioned "
            "model_deprecated model_not_available model_not_found not_found_error unknown_model"
        ),
        _RATE: (
            "rate_limit_error rate_limit_exceeded rate_limited ratelimitreached requests "
            "resource_exhausted throttling throttling.ratequota tokens too_many_requests "
            "toomanyrequests"
        ),
        _OVERLOADED: (
            "capacity_exceeded engine_overloaded_error model_overloaded overloaded "
            "overloaded_error provider_overloaded server_overloaded service_unavailable "
            "service_unavailable_error unavailable unavailable_error"
        ),
        _TIMEOUT: ("deadline_exceeded request_timeout timeout timeout_error vector_store_timeout"),
    }.items()
    for name in names.split()
}
"""Reason by code or type, in lower case with underscores. 1261 is Z.ai's for a prompt that is too
long, 336007 and 336103 are Baidu's."""

GENERAL_CODES: Mapping[str, ErrorReason] = {
    "bad_request": _INVALID,
    "badrequesterror": _INVALID,
    "invalid_argument": _INVALID,
    "invalid_prompt": _INVALID,
    "invalid_request": _INVALID,
    "invalid_request_error": _INVALID,
    "tool_use_failed": _INVALID,
}
"""General codes, which count only for errors without a status."""

SETTLED: Mapping[int, frozenset[ErrorReason]] = {
    401: frozenset(),
    402: frozenset(),
    413: frozenset({_CONTEXT}),
}
"""Statuses that take precedence over codes, except those of the given reasons."""


@dataclass(frozen=True, slots=True)
class TextRule:
    """Rule that maps a phrase to a reason."""

    reason: ErrorReason
    """The reason."""
    statuses: frozenset[int]
    """Statuses for which the rule holds. 0: the error has none, as in a stream."""
    pattern: re.Pattern[str]
    """The pattern of the phrase."""
    unless: re.Pattern[str] | None = None
    """The pattern of words with which the phrase means something else."""

    def holds(self, status: int, text: str) -> bool:
        """Return whether an error with this status and text has the reason."""
        if status not in self.statuses or not self.pattern.search(text):
            return False
        return self.unless is None or not self.unless.search(text)


def _rule(
    reason: ErrorReason, statuses: Sequence[int], *phrases: str, unless: str = ""
) -> TextRule:
    return TextRule(
        reason,
        frozenset(statuses),
        re.compile("|".join(phrases), re.IGNORECASE),
        re.compile(unless, re.IGNORECASE) if unless else None,
    )


_REFUSED = (0, 400, 403, 404, 413, 422, 429)
TEXTS: Sequence[TextRule] = (
    _rule(
        _AUTH,
        _REFUSED,
        r"(?:credit )?balance is too low",
        r"insufficient (?:account )?(?:balance|credits?|funds|quota)\b",
        r"requires more credits|can only afford \d",
        r"(?:used|exhausted) all (?:of your |its |your )?(?:available )?credits",
        r"(?:doesn't|does not) have any credits|(?:out of|no remaining) credits\b",
        r"(?:monthly|key|total) (?:spending |usage )?limit (?:exceeded|reached|has been)",
        r"reached (?:its|your) (?:monthly )?spending limit",
        r"account (?:is |has been )?(?:not active|deactivated|suspended|in arrears)",
        r"(?:invalid|incorrect|expired|missing) api[ -]?key",
        r"api[ -]?key (?:is )?(?:not valid|invalid|expired|missing|not found)",
        r"location is not supported",
    ),
    _rule(
        _LARGE, (0, 413, 429), r"request too large for", r"input or output tokens must be reduced"
    ),
    _rule(_CONTEXT, (0, 400, 404, 413, 422, 500), *OVERFLOWS, unless=RATES),
    _rule(
        _FETCH,
        (0, 400, 404, 422),
        r"error while (?:down)?loading (?:image|file|https?:)|timeout while downloading",
        r"(?:unable|failed|fail|could not|cannot|can't) (?:to )?"
        r"(?:access|download|fetch|load|retrieve)\b" + GAP + r"(?:image|file|picture|url|https?:)",
    ),
    _rule(
        _IMAGE,
        (0, 400, 413, 422),
        r"(?:unable|failed|could not|cannot|can't) (?:to )?"
        r"(?:decode|identify|open|parse|process|read)\b" + GAP + r"(?:image|picture)",
        r"(?:invalid|malformed|corrupt(?:ed)?|unsupported|unprocessable) (?:base64[ -])?image",
        r"not (?:represent )?a valid image|image(?: data)? is (?:not valid|invalid|corrupt)",
        r"image"
        + GAP
        + r"(?:exceeds?|larger than|above)"
        + GAP
        + r"(?:MB|bytes|maximum|limit|pixels)",
    ),
    _rule(
        _FILTERED,
        (0, 400, 403, 422),
        r"violat(?:es?|ed|ing|ions? of)\b" + GAP + r"(?:guidelines|polic(?:y|ies)|terms)",
        r"content (?:management|moderation|filter(?:ing)?) (?:polic(?:y|ies)|system)",
        r"(?:content|input|prompt|request|output)" + GAP + r"(?:was|been|is) (?:flagged|blocked)",
        r"requires moderation|inappropriate content|data_?inspection_?failed",
    ),
    _rule(_UNSUPPORTED, (0, 404), r"no endpoints found that (?:support|can handle)"),
    _rule(
        _MODEL,
        (0, 400, 403, 404, 422),
        r"\bmodels?\b[^;\n]{0,120}?(?:does not exist|doesn't exist|not found|"
        r"has been (?:decommissioned|deprecated|removed|retired)|is (?:not available|deprecated))",
        r"no endpoints found for|not a valid model|unknown model|no such model",
        r"^invalid model\b|model_not_found",
    ),
    _rule(_OVERLOADED, (0, 429, 500, 502), r"\boverloaded\b|(?:at|over|no available) capacity"),
    _rule(
        _RATE,
        (0, 403),
        r"rate[ -]?limit(?:ed|s)? (?:exceeded|reached|error)|too many requests|rate-limited",
    ),
    _rule(_TIMEOUT, (0, 500, 502), r"\btimed out\b|deadline exceeded|gateway time-?out"),
)
"""Rules in order of precedence: the first match decides."""

OF_THE_REQUEST = re.compile(
    r"can only afford \d|fewer max_tokens|prompt tokens limit exceeded"
    r"|required for long context requests|to stream this model",
    re.IGNORECASE,
)
"""Phrases of refusals for the operator's account which another request would not get: a limit on
tokens that the rest of its credit does not cover, a long prompt."""

FIREWALLED = 403
"""Status of an HTML page from a firewall in front of a provider, which some prompts meet."""

UNSPOKEN_CODES = re.compile(
    r"account|api_?key|arrear|auth|balance|billing|credential|credit|organi[sz]ation|payment|"
    r"permission|project|quota|subscription|tenant|workspace|^\d{3}$",
    re.IGNORECASE,
)
"""Pattern of codes that callers do not get: they concern the operator's account, or repeat the
status."""

_HIDDEN = "[hidden]"
_NAMED = r"((?:api[-_ ]?key|(?:access|auth)[-_ ]?token|password|secret)[\"'`]?\s*[:=]\s*)"
_RANDOM = r"(?=[\w*-]*(?-i:[\d*A-Z]))"  # `user_defined` is a word, not an ID.

SECRETS: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", r"\1"),
        (r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/?#@\"'<>]+@", r"\1"),
        (r"\bdata:[\w/+.-]{0,60};base64,[\w+/=%-]*", "data:" + _HIDDEN),
        (r"\b(bearer|basic)\s+[\w.~+/=*-]{6,}", r"\1 " + _HIDDEN),
        (_NAMED + r"[^\s,;}&]+", r"\1" + _HIDDEN),
        (r"\b(?:sk|gsk|xai|ghp|gho|pplx|nvapi|csk|tgp|glpat)[-_][\w*.-]{6,}", _HIDDEN),
        (r"\b(?:pk|rk|hf|fw|r8|key|pat)[-_]" + _RANDOM + r"[\w*-]{8,}", _HIDDEN),
        (r"\b(?:user|org|proj|team|acct|project|req)[-_]" + _RANDOM + r"[\w*-]{8,}", _HIDDEN),
        (r"\b(?:AIza[\w*-]{8,}|A[KS]IA[A-Z0-9*]{8,}|eyJ[\w-]{8,}\.[\w.-]*)", _HIDDEN),
        (r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", _HIDDEN),
        (r"\barn:aws[\w:/.*-]*", _HIDDEN),
        (r"\b[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{2,63}", _HIDDEN),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b", _HIDDEN),
        (r"(?<![\w+/=-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])[\w+/=-]{40,}", _HIDDEN),
    )
)
"""Patterns to redact, with replacements: credentials, account IDs, addresses, encoded data."""
