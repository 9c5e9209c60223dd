"""Facts of a public model, as its callers see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from services.capabilities import Capabilities
from services.common.off_loop import off_loop
from services.domain.model import Modality, Model, ModelPricing, PricingTier, TokenRates
from services.metering.price_list import PriceList
from services.metering.prices import BASIS_POINTS, FREE, MEDIA, PICO_USD, Price, Rates
from services.models.model_times import ModelTimes
from services.providers.base import ModelRoute, Target
from services.providers.supported_parameters import supported_by_all

MODEL_BYTES = 512
"""Bytes of a request whose reading takes as long as making one model: 20 us."""

_UNITS_PER_USD = int(PICO_USD) * BASIS_POINTS
"""The smallest amount of a price with a markup is a US dollar divided by this."""
_DECIMALS = len(str(_UNITS_PER_USD)) - 1


class ModelFacts:
    """Makes models of routes."""

    def __init__(self, times: ModelTimes, names: Mapping[str, Mapping[str, str]]) -> None:
        """`names` has the parameters of each dialect, by the contract's names."""
        self._times = times
        self._names = names

    async def of(
        self, routes: Sequence[ModelRoute], prices: PriceList, markup_bp: int
    ) -> Sequence[Model]:
        """Return the models of routes as a caller with this markup sees them.

        Raises Failure STORAGE_UNAVAILABLE.
        """
        times = await self._times.of([route.base_model for route in routes])
        return await off_loop(
            len(routes) * MODEL_BYTES,
            lambda: [
                self.model(
                    route,
                    prices.lookup(route.base_model),
                    markup_bp,
                    times[route.base_model] // 1000,
                )
                for route in routes
            ],
        )

    def model(
        self, route: ModelRoute, price: Price | None, markup_bp: int, create_time_s: int
    ) -> Model:
        """Return the model of a route at its price, if it has one."""
        capabilities = route.capabilities
        embeds = capabilities.embeddings is not None
        always = capabilities.thinking_default == "always"
        reasons = always or capabilities.named_thinking or route.model != route.base_model
        return Model(
            name=route.model,
            owner=route.model.partition("/")[0],
            create_time_s=create_time_s,
            max_output_token_count=capabilities.max_output_tokens,
            accepts_images=capabilities.images == "yes",
            reasons=reasons,
            context_token_count=_context_tokens(capabilities),
            input_modalities=[*_inputs(capabilities, price or FREE)],
            output_modalities=[*_outputs(capabilities, price or FREE)],
            supported_parameters=[] if embeds else supported_by_all(_preferred(route), self._names),
            reasoning_efforts=[*capabilities.efforts] if reasons else [],
            always_reasons=always,
            pricing=None if price is None else pricing_of(price, markup_bp),
        )


def pricing_of(price: Price, markup_bp: int) -> ModelPricing:
    """Return what a caller with this markup is charged."""
    tiers = [
        PricingTier(
            above_prompt_token_count=tier.above_prompt_tokens, rates=_rates(tier, price, markup_bp)
        )
        for tier in price.tiers
    ]
    return ModelPricing(
        rates=_rates(price, price, markup_bp),
        request_usd=_usd(price.request, markup_bp),
        tiers=tiers,
        provider_tool_usd={
            name: _usd(pico, markup_bp) for name, pico in price.provider_tools.items()
        },
    )


def _preferred(route: ModelRoute) -> Sequence[Target]:
    """Return the targets that get the calls while they answer."""
    first = min(target.channel.priority for target in route.targets)
    return [target for target in route.targets if target.channel.priority == first]


def _context_tokens(capabilities: Capabilities) -> int:
    embeddings = capabilities.embeddings
    return capabilities.context_tokens or (0 if embeddings is None else embeddings.input_tokens_max)


def _inputs(capabilities: Capabilities, price: Price) -> Iterator[Modality]:
    yield "text"
    if capabilities.images == "yes":
        yield "image"
    if capabilities.files == "yes":
        yield "file"
    if capabilities.audio == "yes" or price.prompt_audio is not None:
        yield "audio"


def _outputs(capabilities: Capabilities, price: Price) -> Iterator[Modality]:
    if capabilities.embeddings is not None:
        yield "embeddings"
        return
    yield "text"
    if price.completion_image is not None:
        yield "image"
    if price.completion_audio is not None:
        yield "audio"


def _rates(rates: Rates, price: Price, markup_bp: int) -> TokenRates:
    """Return the rates of a price or of one of its tiers.

    Readers take what a tier does not name from the price: it names its media if the price does.
    """
    found = {}
    for name in Rates.__struct_fields__:
        pico = getattr(rates, name)
        if any(getattr(each, name) is not None for each in (price, *price.tiers)):
            found[f"{name}_usd"] = _usd(
                getattr(rates, MEDIA[name]) if pico is None else pico, markup_bp
            )
    return TokenRates(**found)


def _usd(pico: int, markup_bp: int) -> str:
    """Return an amount with its markup in US dollars, exactly, without exponent."""
    whole, rest = divmod(pico * (BASIS_POINTS + markup_bp), _UNITS_PER_USD)
    decimals = f"{rest:0{_DECIMALS}d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
