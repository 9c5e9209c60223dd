"""The list of models as clients read it, and its prices as the ledger charges them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import ModelInfo
from openai import AsyncOpenAI
from openai.types import Model
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1.model_service_pb2_grpc import ModelServiceStub

from services.config.prices import TierConfig
from tests.stand.billing_stand import (
    FORMS,
    FREE,
    MODEL,
    NANO,
    PRICE,
    BillingStand,
    bearer,
    billing_stand,
)

TIERED: Mapping[str, Any] = {
    **PRICE,
    "context_tokens": 128_000,
    "max_output_tokens": 4_096,
    "images": "yes",
    "tiers": (TierConfig(above_prompt_tokens=1_000, prompt_usd_per_mtok=Decimal(7)),),
}
USAGES: Sequence[Mapping[str, Any]] = (
    {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
    {"prompt_tokens": 999_983, "completion_tokens": 20},
    {"prompt_tokens": 1_001, "completion_tokens": 1},
    {
        "prompt_tokens": 300,
        "completion_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 299},
        "completion_tokens_details": {"reasoning_tokens": 13},
    },
)


class Pricing(msgspec.Struct, kw_only=True):
    """Prices as clients of OpenRouter read them: numbers in strings."""

    prompt: str
    completion: str
    request: str
    image: str
    web_search: str
    internal_reasoning: str
    input_cache_read: str
    input_cache_write: str
    overrides: list[dict[str, Any]] = []


class Architecture(msgspec.Struct, kw_only=True):
    """Modalities as such clients read them."""

    modality: str
    input_modalities: list[str]
    output_modalities: list[str]
    tokenizer: str


class Provider(msgspec.Struct, kw_only=True):
    """Limits as such clients read them."""

    context_length: int | None
    max_completion_tokens: int | None
    is_moderated: bool


class RouterModel(msgspec.Struct, kw_only=True):
    """A model as such clients read it."""

    id: str
    name: str
    created: int
    description: str
    canonical_slug: str
    context_length: int | None
    architecture: Architecture
    pricing: Pricing
    top_provider: Provider
    supported_parameters: list[str]
    per_request_limits: dict[str, Any] | None


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[BillingStand]:
    """A gateway with a price that depends on the prompt's length."""
    async with billing_stand(tmp_path, price=TIERED) as stand:
        yield stand


async def listed(stand: BillingStand, key: str) -> dict[str, RouterModel]:
    """Return the models of a key, by name."""
    url = f"{stand.gateway.base_url}/models"
    async with stand.gateway.http.get(url, headers=bearer(key)) as answer:
        page = await answer.json()
    models = msgspec.convert(page["data"], list[RouterModel])
    return {model.id: model for model in models}


def charge_of(pricing: Pricing, usage: Mapping[str, Any]) -> int:
    """Return what a reader of the list expects a usage to cost, in nano-USD."""
    rates = msgspec.to_builtins(pricing)
    for override in pricing.overrides:
        if usage["prompt_tokens"] > override["min_prompt_tokens"]:
            rates |= override
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    thought = usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    usd = Decimal(rates["request"])
    usd += Decimal(rates["prompt"]) * (usage["prompt_tokens"] - cached)
    usd += Decimal(rates["input_cache_read"]) * cached
    usd += Decimal(rates["completion"]) * (usage["completion_tokens"] - thought)
    usd += Decimal(rates["internal_reasoning"]) * thought
    return int((usd * NANO).to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize("form", FORMS)
async def test_the_ledger_charges_the_listed_price(stand: BillingStand, form: str) -> None:
    """The account may have a markup, and the provider may report any usage."""
    key = await stand.open(credit_nano=1000 * NANO)
    spent = 0
    for markup_bp in (0, 1, 1_250):
        account = accounts.Account(account="acme", markup_basis_points=markup_bp)
        request = accounts.UpdateAccountRequest(account=account)
        request.update_mask.paths.append("markup_basis_points")
        await stand.accounts.UpdateAccount(request)
        pricing = (await listed(stand, key))[MODEL].pricing
        for usage in USAGES:
            total = usage["prompt_tokens"] + usage["completion_tokens"]
            stand.usage = {**usage, "total_tokens": total}
            await stand.ask(key, form)
            spent += charge_of(pricing, usage)
            assert await stand.balance(key) == 1000 * NANO - spent


async def test_the_list_has_the_facts_of_a_model(stand: BillingStand) -> None:
    """They are at OpenRouter's places. A free model is listed as free."""
    key = await stand.open()
    models = await listed(stand, key)

    model = models[MODEL]
    assert (model.context_length, model.top_provider.max_completion_tokens) == (128_000, 4_096)
    assert model.architecture.input_modalities == ["text", "image"]
    assert model.architecture.modality == "text+image->text"
    assert {"tools", "temperature", "max_tokens"} <= {*model.supported_parameters}
    assert model.pricing.prompt == "0.000003"
    assert model.pricing.overrides[0]["min_prompt_tokens"] == 1_000
    assert models[FREE].context_length is None
    assert {models[FREE].pricing.prompt, models[FREE].pricing.request} == {"0"}
    url = f"{stand.gateway.base_url}/models/{MODEL}"
    async with stand.gateway.http.get(url, headers=bearer(key)) as answer:
        assert msgspec.convert(await answer.json(), RouterModel) == model


async def test_sdks_read_the_list(stand: BillingStand) -> None:
    """OpenAI's and Anthropic's validate each model; both see the same names and times."""
    key = await stand.open()
    async with (
        AsyncOpenAI(api_key=key, base_url=stand.gateway.base_url) as gpt,
        AsyncAnthropic(api_key=key, base_url=stand.gateway.url) as claude,
    ):
        ours = [Model.model_validate(each.model_dump()) async for each in gpt.models.list()]
        theirs = [
            ModelInfo.model_validate(each.model_dump()) async for each in claude.models.list()
        ]
        one = await claude.models.retrieve(MODEL)
    assert [each.id for each in ours] == [each.id for each in theirs]
    assert [each.created for each in ours] == [int(each.created_at.timestamp()) for each in theirs]
    assert (one.max_input_tokens, one.max_tokens) == (128_000, 4_096)
    assert one.capabilities is not None
    assert one.capabilities.image_input.supported
    assert not one.capabilities.pdf_input.supported


async def test_the_contract_has_the_same_prices(stand: BillingStand) -> None:
    """They are typed there."""
    key = await stand.open()
    async with stand.gateway.service.channel() as channel:
        found = await ModelServiceStub(channel).GetModel(
            pb.GetModelRequest(model=MODEL), metadata=[("authorization", f"Bearer {key}")]
        )
    model, rest = found.model, (await listed(stand, key))[MODEL]
    assert model.context_token_count == rest.context_length
    assert model.input_modalities == [pb.MODALITY_TEXT, pb.MODALITY_IMAGE]
    assert [*model.supported_parameters] == rest.supported_parameters
    assert model.pricing.rates.cache_read_usd == rest.pricing.input_cache_read
    assert model.pricing.request_usd == rest.pricing.request
    (tier,) = model.pricing.tiers
    assert tier.above_prompt_token_count == 1_000
    assert tier.rates.prompt_usd == rest.pricing.overrides[0]["prompt"] == "0.000007"
