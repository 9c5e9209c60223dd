"""How calls fail for a program with OpenAI's Python SDK, whichever dialect the provider speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from services.common.key_format import new_secret
from services.storage.keys import KeyScope
from tests.stand.dialect_stand import MODEL, PROVIDER_KEY, DialectStand
from tests.stand.providers.answers import Answer, Break, Refused, text

MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]
GREETING = Answer(parts=[text("Hel", "lo")])

FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": 2.1}, "temperature", "invalid_value"),
    ({"top_p": -0.1}, "top_p", "invalid_value"),
    ({"presence_penalty": -3}, "presence_penalty", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "invalid_value"),
    (
        {"messages": [*MESSAGES, {"role": "assistant", "reasoning_state": "?"}, *MESSAGES]},
        "messages[1].reasoning_state",
        "invalid_value",
    ),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"extra_body": {"thinking": {"budget_tokens": 1}}}, "thinking.budget_tokens", "invalid_value"),
    ({"model": "house/unknown"}, "model", "model_not_found"),
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusal of a provider, and the error that the caller gets."""

    refused: Refused
    kind: type[openai.APIStatusError]
    status: int
    code: str


REFUSALS = [
    Refusal(
        Refused(status=400, kind="invalid_request_error", message="prompt is too long: 9 > 8"),
        openai.BadRequestError,
        400,
        "context_length_exceeded",
    ),
    Refusal(
        Refused(status=401, kind="authentication_error", message=f"invalid key {PROVIDER_KEY}"),
        openai.InternalServerError,
        502,
        "upstream_auth_failed",
    ),
    Refusal(
        Refused(status=429, kind="rate_limit_error", message="Slow down.", retry_after_s=7),
        openai.RateLimitError,
        429,
        "upstream_rate_limited",
    ),
    Refusal(
        Refused(status=500, kind="api_error", message="Internal server error"),
        openai.InternalServerError,
        502,
        "upstream_error",
    ),
    Refusal(
        Refused(status=503, kind="overloaded_error", message="Overloaded"),
        openai.InternalServerError,
        503,
        "upstream_overloaded",
    ),
]


async def ask(client: AsyncOpenAI, **fields: Any) -> Any:
    """Return a completion, or the first chunk of it."""
    request: Any = {"model": MODEL, "messages": MESSAGES} | fields
    answer = await client.chat.completions.create(**request)
    return await anext(aiter(answer)) if fields.get("stream") else answer


@pytest.mark.parametrize(("fields", "param", "code"), FAULTS)
async def test_a_request_with_a_fault_is_refused_with_its_field(
    stand: DialectStand, client: AsyncOpenAI, fields: dict[str, Any], param: str, code: str
) -> None:
    """No provider is called."""
    stand.provider.say(GREETING)

    with pytest.raises(openai.BadRequestError) as refused:
        await ask(client, **fields)

    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"
    assert not stand.provider.requests


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
async def test_a_providers_refusal_has_class_status_and_code(
    stand: DialectStand, client: AsyncOpenAI, refusal: Refusal, streamed: bool
) -> None:
    """Streams have the same."""
    refused = refusal.refused
    stand.provider.say(refused)

    with pytest.raises(refusal.kind) as failed:
        await ask(client, stream=streamed)

    assert (failed.value.status_code, failed.value.code) == (refusal.status, refusal.code)
    assert failed.value.request_id
    assert PROVIDER_KEY not in str(failed.value)
    final = failed.value.code == "upstream_auth_failed"
    assert failed.value.response.headers.get("x-should-retry") == ("false" if final else None)
    if refused.retry_after_s:
        assert int(failed.value.response.headers["retry-after"]) >= refused.retry_after_s


@pytest.mark.parametrize("breaks_off", ["error", "cut"])
async def test_a_broken_stream_raises_after_its_text(
    stand: DialectStand, client: AsyncOpenAI, breaks_off: Break
) -> None:
    """There is no finish reason."""
    stand.provider.say(Answer(parts=[text("Hel", "lo")], breaks_off=breaks_off))
    pieces: list[str] = []
    endings: list[str | None] = []

    with pytest.raises(openai.APIError) as failed:  # noqa: PT012 - it fails on the way
        async for chunk in await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True
        ):
            pieces.append(chunk.choices[0].delta.content or "")
            endings.append(chunk.choices[0].finish_reason)

    assert "".join(pieces) == "Hello"
    assert not any(endings)
    assert failed.value.code == (
        "upstream_disconnected" if breaks_off == "cut" else BROKEN_CODES[stand.dialect]
    )


BROKEN_CODES = {
    "anthropic": "upstream_overloaded",
    "openai": "upstream_error",
    "openai-responses": "upstream_error",
    "openrouter": "upstream_error",
}
"""The gateway's codes for the providers' own words."""


async def test_an_unknown_key_is_an_authentication_error(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """It is well-formed."""
    with pytest.raises(openai.AuthenticationError) as refused:
        await ask(client.with_options(api_key=new_secret()))

    assert refused.value.code == "invalid_api_key"


async def test_a_model_out_of_the_keys_scope_is_403(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """A key for other models may not use this one."""
    scope = KeyScope(models=frozenset({"house/other"}))
    _, secret = await stand.gateway.service.key_maker.make("default", scope=scope)

    with pytest.raises(openai.PermissionDeniedError) as refused:
        await ask(client.with_options(api_key=secret))

    assert refused.value.param == "model"
    assert not stand.provider.requests


async def test_an_account_without_money_is_402_and_not_retried(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """An account without money is told so, and the SDK does not try again."""
    _, secret = await stand.gateway.service.key_maker.make("poor")

    with pytest.raises(openai.APIStatusError) as refused:
        await ask(client.with_options(api_key=secret, max_retries=2))

    assert refused.value.status_code == 402
    assert (refused.value.type, refused.value.code) == ("insufficient_quota",) * 2
    assert not stand.provider.requests


async def test_an_unknown_model_is_not_found(stand: DialectStand, client: AsyncOpenAI) -> None:
    """Looking up a model that is not there finds nothing."""
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("house/unknown")


async def test_strict_mode_refuses_dropped_parameters(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """Other callers get a note."""
    stand.provider.say(GREETING)

    with pytest.raises(openai.BadRequestError) as refused:
        await ask(client, service_tier="flex", extra_headers={"x-pomogator-mode": "strict"})

    assert (refused.value.param, refused.value.code) == ("service_tier", "unsupported_parameter")
    assert not stand.provider.requests


async def test_the_sdks_own_retries_succeed(stand: DialectStand, client: AsyncOpenAI) -> None:
    """They follow the answer's Retry-After."""
    limited = Refused(status=429, kind="rate_limit_error", message="Slow down.", retry_after_s=0)
    stand.provider.say(limited, GREETING)

    completion = await ask(client.with_options(max_retries=2))

    assert completion.choices[0].message.content == "Hello"
