"""Decoder of requests: OpenAI's JSON to a `TextRequest`.

Fields that chat completions have, too, are read as there. `null` means absent.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import ApiError, invalid
from gateway.http.strict_json import parse
from gateway.surfaces.json_fields import boolean, int32, text
from gateway.surfaces.openai_chat.decode_fields import FIELDS, streaming
from gateway.surfaces.openai_chat.extra_body import unpack
from gateway.surfaces.openai_chat.renamed_fields import read_renamed
from gateway.surfaces.openai_completions.text_request import TextRequest
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, TextCompletion

SHARED = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "n", "seed", "stop", "logit_bias", "prompt_cache_key"),
    }
)
"""Fields that are read as those of chat completions."""

LOGPROBS_MAX = 20
"""The most alternatives of a token. OpenAI gives 5, others as many as in chat completions."""

_STRINGS = msgspec.json.Decoder(list[str])


_Fields = dict[str, Raw]


def decode(body: bytes) -> TextRequest:
    """Decode a request. Raises ApiError: it is not one. The status is 4xx, whatever the bytes."""
    fields = parse(body)
    unpack(fields)
    for name in ("model", "prompt"):
        if name not in fields:
            raise invalid(name, f"Missing required parameter: `{name}`.")
    values: dict[str, Any] = {"model": text("model", fields.pop("model"))}
    texts = [_prompt(fields.pop("prompt"))]
    if "suffix" in fields:
        texts.append(text("suffix", fields.pop("suffix")))
    echo = "echo" in fields and boolean("echo", fields.pop("echo"))
    stream, include_usage = streaming(fields)
    for name in [name for name in fields if name in SHARED]:
        values[name] = FIELDS[name](name, fields.pop(name))
    _read_logprobs(fields, values)
    _refuse_candidates(fields, values)
    read_renamed(fields, values)
    parts = [TextPart(text=each) for each in texts]
    spec = ChatCompletionSpec(
        messages=[Message(role="user", content=list(parts))],
        text_completion=TextCompletion(echo=echo),
        extra_json=msgspec.json.encode(fields) if fields else b"",
        **values,
    )
    return TextRequest(
        spec=spec,
        stream=stream,
        include_usage=include_usage,
        prompt_chars=0 if echo else len(texts[0]),
    )


def _prompt(raw: Raw) -> str:
    """Return the prompt. Several prompts would be several calls. Token IDs belong to one model."""
    if bytes(memoryview(raw)[:1]) != b"[":
        return text("prompt", raw)
    try:
        prompts = _STRINGS.decode(raw)
    except msgspec.ValidationError:
        raise _unsupported("prompt", "Prompts of token IDs are not supported.") from None
    if len(prompts) != 1:
        raise _unsupported("prompt", "A request has exactly one prompt.")
    return prompts[0]


def _read_logprobs(fields: _Fields, values: dict[str, Any]) -> None:
    if "logprobs" not in fields:
        return
    most = int32("logprobs", fields.pop("logprobs"))
    if not 0 <= most <= LOGPROBS_MAX:
        raise invalid("logprobs", f"`logprobs` must be in [0, {LOGPROBS_MAX}].")
    values |= {"logprobs": True, "top_logprobs": most}


def _refuse_candidates(fields: _Fields, values: dict[str, Any]) -> None:
    """Refuse answers that are generated and not shown: their price could not be held before."""
    if "best_of" not in fields:
        return
    best_of = int32("best_of", fields.pop("best_of"))
    if best_of != values.get("n", 1):
        raise _unsupported("best_of", "`best_of` must be equal to `n`.")


def _unsupported(param: str, message: str) -> ApiError:
    return ApiError(ErrorReason.UNSUPPORTED_FEATURE, message, param=param)
