"""Responses in OpenRouter's form instead of proto JSON: the key, credits and a generation.

https://openrouter.ai/docs/api/api-reference/api-keys/get-current-key,
https://openrouter.ai/docs/api/api-reference/credits/get-credits and
https://openrouter.ai/docs/api/api-reference/generations/get-generation. Amounts are in US dollars.
Clients of OpenRouter require every member, so unset ones are `null`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import msgspec
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.usage.v1 import usage_service_pb2 as usage

from services.common.money import exact_usd

CANCELLED = frozenset({"aborted", "client_gone", "deadline", "revoked"})
"""Ends of calls that were cut off."""
FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter"})
API_TYPES: Mapping[str, str] = {"embeddings": "embeddings"}
"""OpenRouter's types of APIs, by the surface. Others are `completions`."""

RATE_NOTE = "Requests per minute of the key; -1: no limit of its own."


def _credits(found: usage.Credits) -> dict[str, Any]:
    return {
        "total_credits": _usd(found.total_credit_nano_usd),
        "total_usage": _usd(found.total_charge_nano_usd),
    }


def _key(key: usage.KeyUsage) -> dict[str, Any]:
    has_limit = key.HasField("monthly_limit_nano_usd")
    expiry = key.expire_time.ToDatetime(UTC) if key.HasField("expire_time") else None
    return {
        "label": key.display_name or f"{key.prefix}...",
        "limit": _usd(key.monthly_limit_nano_usd) if has_limit else None,
        "limit_remaining": _usd(key.monthly_remaining_nano_usd) if has_limit else None,
        "limit_reset": "monthly" if has_limit else None,
        "usage": _usd(key.total_nano_usd),
        "usage_daily": _usd(key.daily_nano_usd),
        "usage_weekly": _usd(key.weekly_nano_usd),
        "usage_monthly": _usd(key.monthly_nano_usd),
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": key.administers_account,
        "is_provisioning_key": False,
        "creator_user_id": key.account,
        "expires_at": expiry,
        "rate_limit": {
            "requests": key.requests_per_minute if key.HasField("requests_per_minute") else -1,
            "interval": "1m",
            "note": RATE_NOTE,
        },
    }


def _usd(nano_usd: int) -> msgspec.Raw:
    """Return the amount as an exact JSON number."""
    return msgspec.Raw(exact_usd(nano_usd).encode())


def _generation(call: calls.Call) -> dict[str, Any]:
    began = call.HasField("first_token_duration")
    tokens = {
        "tokens_prompt": call.prompt_token_count,
        "tokens_completion": call.completion_token_count,
        "native_tokens_prompt": call.prompt_token_count,
        "native_tokens_completion": call.completion_token_count,
        "native_tokens_reasoning": call.thinking_token_count,
        "native_tokens_cached": call.cache_read_token_count,
        "native_tokens_completion_images": 0,
        "num_media_prompt": None,
        "num_media_completion": None,
        "num_input_audio_prompt": None,
        "num_search_results": None,
    }
    return {
        "id": call.completion_id or call.call_id,
        "upstream_id": None,
        "request_id": call.request_id,
        "session_id": call.session_id or None,
        "total_cost": _usd(call.charge_nano_usd),
        "usage": _usd(call.charge_nano_usd),
        "cache_discount": None,
        "upstream_inference_cost": None,
        "created_at": call.create_time.ToDatetime(UTC),
        "model": call.served_model or call.model,
        "app_id": None,
        "streamed": call.streamed,
        "cancelled": call.end in CANCELLED,
        "provider_name": None,
        "latency": call.first_token_duration.ToMilliseconds() if began else None,
        "moderation_latency": None,
        "generation_time": call.total_duration.ToMilliseconds(),
        "finish_reason": call.end if call.end in FINISHES else None,
        "native_finish_reason": None,
        **tokens,
        "origin": "",
        "is_byok": False,
        "api_type": API_TYPES.get(call.surface, "completions"),
        "router": None,
        "external_user": call.end_user or None,
        "provider_responses": None,
        "user_agent": None,
        "http_referer": None,
    }


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "pomogator.usage.v1.UsageService.GetKeyUsage": lambda response: _key(response.key_usage),
    "pomogator.usage.v1.UsageService.GetCredits": lambda response: _credits(response.credits),
    "pomogator.calls.v1.CallService.GetGeneration": lambda response: _generation(response.call),
}
"""The member `data` of a response, by the method's full name."""
