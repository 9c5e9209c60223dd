"""Responses in OpenRouter's form instead of proto JSON: `GET /v1/key` and `GET /v1/credits`.

https://openrouter.ai/docs/api/api-reference/api-keys/get-current-key and
https://openrouter.ai/docs/api/api-reference/credits/get-credits. Amounts are in US dollars. Clients
of OpenRouter require every member, so what is unset is `null`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import msgspec
from pomogator.usage.v1 import usage_service_pb2 as usage

from services.common.money import exact_usd

RATE_NOTE = "Requests per minute of the key; -1: no limit of its own."


def key_form(response: usage.GetKeyUsageResponse) -> dict[str, Any]:
    """Return the limits and usage of a key."""
    return {"data": _key(response.key_usage)}


def credits_form(response: usage.GetCreditsResponse) -> dict[str, Any]:
    """Return the credits and charges of an account."""
    found = response.credits
    return {
        "data": {
            "total_credits": _usd(found.total_credit_nano_usd),
            "total_usage": _usd(found.total_charge_nano_usd),
        }
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
        "is_management_key": False,
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


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "pomogator.usage.v1.UsageService.GetKeyUsage": key_form,
    "pomogator.usage.v1.UsageService.GetCredits": credits_form,
}
"""The form of a response, by the method's full name."""
