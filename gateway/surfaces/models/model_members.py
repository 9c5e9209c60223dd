"""Members of a model: OpenAI's, and those that OpenRouter's list has beside them.

https://platform.openai.com/docs/api-reference/models/object,
https://openrouter.ai/docs/api/api-reference/models/get-models
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.domain.model import Modality, Model, ModelPricing, TokenRates

RATES: Mapping[str, str] = {
    "prompt": "prompt_usd",
    "completion": "completion_usd",
    "internal_reasoning": "thinking_usd",
    "input_cache_read": "cache_read_usd",
    "input_cache_write": "cache_write_usd",
    "input_cache_write_1h": "cache_write_1h_usd",
}
"""Prices of all models, in OpenRouter's words and in the domain's."""

MEDIA_RATES: Mapping[str, str] = {
    "audio": "prompt_audio_usd",
    "image_token": "prompt_image_usd",
    "audio_output": "completion_audio_usd",
    "image_output": "completion_image_usd",
}
"""Prices of media, of models that have prices of their own for them."""


def members_of(model: Model) -> dict[str, object]:
    """Return the members of a model. Unknown ones are null."""
    context = model.context_token_count or None
    members: dict[str, object] = {
        "id": model.name,
        "object": "model",
        "created": model.create_time_s,
        "owned_by": model.owner,
        "canonical_slug": model.name,
        "name": model.name,
        "description": "",
        "context_length": context,
        "architecture": _architecture(model),
        "pricing": _prices(model.pricing or ModelPricing()),
        "top_provider": {
            "context_length": context,
            "max_completion_tokens": model.max_output_token_count or None,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": model.supported_parameters,
        "default_parameters": {},
        "supported_voices": None,
        "expiration_date": None,
        "links": {"details": f"/v1/models/{model.name}"},
    }
    if model.reasons:
        members["reasoning"] = {
            "mandatory": model.always_reasons,
            "supported_efforts": model.reasoning_efforts[::-1] or None,
        }
    return members


def _architecture(model: Model) -> dict[str, object]:
    inputs, outputs = _words(model.input_modalities), _words(model.output_modalities)
    return {
        "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
        "input_modalities": inputs,
        "output_modalities": outputs,
        "tokenizer": "Other",
        "instruct_type": None,
    }


def _words(modalities: Sequence[Modality]) -> Sequence[str]:
    """Return the modalities that this edge knows; a service of an older version names none."""
    return [word for word in modalities if word and not word.isdecimal()] or ["text"]


def _prices(pricing: ModelPricing) -> dict[str, object]:
    prices: dict[str, object] = {
        **_rates(pricing.rates),
        "request": pricing.request_usd or "0",
        "image": "0",  # Beside its tokens.
        "web_search": pricing.provider_tool_usd.get("web_search", "0"),
    }
    if pricing.tiers:
        prices["overrides"] = [
            {"min_prompt_tokens": tier.above_prompt_token_count, **_rates(tier.rates)}
            for tier in pricing.tiers
        ]
    return prices


def _rates(rates: TokenRates | None) -> dict[str, str]:
    """Return US dollars per token."""
    shown = {name: getattr(rates, field, "") or "0" for name, field in RATES.items()}
    for name, field in MEDIA_RATES.items():
        if own := getattr(rates, field, ""):
            shown[name] = own
    return shown
