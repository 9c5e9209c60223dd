"""Prices: what a usage costs, and estimates before it is known."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import ChannelConfig
from services.config.prices import PriceConfig, TierConfig
from services.domain.usage import Usage
from services.metering.price_list import PriceList
from services.metering.prices import FREE, Price, Tariff, Tier
from tests.services.metering.price_rows import cost_nano, row

SONNET = Price.from_config(
    PriceConfig(
        prompt_usd_per_mtok=Decimal(3),
        cache_read_usd_per_mtok=Decimal("0.3"),
        cache_write_usd_per_mtok=Decimal("3.75"),
        cache_write_1h_usd_per_mtok=Decimal(6),
        completion_usd_per_mtok=Decimal(15),
    )
)


def test_every_kind_of_token_has_its_price() -> None:
    """Cached tokens are part of the prompt, reasoning of the completion: none is billed twice."""
    usage = Usage(
        prompt_token_count=1000,
        cache_read_token_count=500,
        cache_write_token_count=300,
        cache_write_1h_token_count=100,
        completion_token_count=50,
        thinking_token_count=20,
    )

    # In microdollars: 200 x 3 + 500 x 0.3 + 200 x 3.75 + 100 x 6 + 50 x 15
    assert cost_nano(usage, SONNET) == 1000 * (600 + 150 + 750 + 600 + 750)


def test_a_price_below_a_nanodollar_is_exact() -> None:
    """0.075 USD per million tokens is 75 nanodollars for a thousand; a bill is rounded up once."""
    price = Price.from_config(row(prompt_usd_per_mtok="0.000075", completion_usd_per_mtok=0.075))

    assert cost_nano(Usage(completion_token_count=1000), price) == 75_000
    assert cost_nano(Usage(completion_token_count=1000, prompt_token_count=1), price) == 75_001
    assert cost_nano(Usage(prompt_token_count=1), price) == 1
    assert cost_nano(Usage(prompt_token_count=40), price) == 3


def test_a_price_per_request_may_stand_alone() -> None:
    """With a price per request alone, tokens cost nothing."""
    price = Price.from_config(row(request_usd="0.01"))

    assert cost_nano(Usage(prompt_token_count=9999, completion_token_count=9), price) == 10**7


def test_reasoning_may_have_its_own_price() -> None:
    """Without its own price reasoning is billed like the rest of the completion."""
    usage = Usage(completion_token_count=100, thinking_token_count=60)
    plain = Price.from_config(row(completion_usd_per_mtok=1))
    apart = Price.from_config(row(completion_usd_per_mtok=1, thinking_usd_per_mtok=4))

    assert cost_nano(usage, plain) == 100_000
    assert cost_nano(usage, apart) == 40_000 + 240_000


def test_a_long_prompt_has_its_own_rates() -> None:
    """Above the threshold all tokens of the call have the tier's rates, at it they do not."""
    price = Price.from_config(
        PriceConfig(
            prompt_usd_per_mtok=Decimal(1),
            completion_usd_per_mtok=Decimal(2),
            tiers=(
                TierConfig(
                    above_prompt_tokens=1000,
                    prompt_usd_per_mtok=Decimal(10),
                    completion_usd_per_mtok=Decimal(20),
                ),
            ),
        )
    )

    at = Usage(prompt_token_count=1000, completion_token_count=10)
    beyond = Usage(prompt_token_count=1001, completion_token_count=10)
    assert cost_nano(at, price) == 1_020_000
    assert cost_nano(beyond, price) == 10_210_000


def test_markup_is_on_top_and_rounded_once() -> None:
    """250 basis points of 1 USD are 2.5 cents; of a nanodollar, the next whole one."""
    dollar = Price.from_config(row(request_usd=1))

    assert cost_nano(Usage(), dollar, markup_bp=250) == 1_025_000_000
    assert cost_nano(Usage(), Price(request=1000), markup_bp=1) == 2
    assert cost_nano(Usage(), FREE, markup_bp=250) == 0


def test_sound_and_images_may_have_their_own_price() -> None:
    """As far as they are not cached, nor reasoning; otherwise they are billed like text."""
    usage = Usage(
        prompt_token_count=100,
        prompt_audio_token_count=60,
        prompt_image_token_count=10,
        cache_read_token_count=50,
        completion_token_count=40,
        completion_audio_token_count=30,
        completion_image_token_count=5,
    )
    keys = {"prompt_usd_per_mtok": 1, "completion_usd_per_mtok": 2, "cache_read_usd_per_mtok": 0}
    sounds = {"prompt_audio_usd_per_mtok": 30, "completion_audio_usd_per_mtok": 60}
    images = {"prompt_image_usd_per_mtok": 5, "completion_image_usd_per_mtok": 9}

    assert cost_nano(usage, Price.from_config(row(**keys))) == 50_000 + 80_000
    apart = Price.from_config(row(**keys, **sounds, **images))
    assert cost_nano(usage, apart) == 50 * 30_000 + 30 * 60_000 + 5 * 9_000 + 5 * 2_000


CACHED = Usage(
    prompt_token_count=1000,
    cache_read_token_count=500,
    cache_write_token_count=400,
    cache_write_1h_token_count=100,
    completion_token_count=10,
    thinking_token_count=9,
)


def test_prices_that_are_left_out_give_nothing_away() -> None:
    """Cached tokens cost what the prompt costs, reasoning what the completion costs."""
    price = Price.from_config(row(prompt_usd_per_mtok=3, completion_usd_per_mtok=15))

    assert cost_nano(CACHED, price) == 1000 * 3_000 + 10 * 15_000
    assert price == Price(
        prompt=3_000_000, cache_read=3_000_000, cache_write=3_000_000, cache_write_1h=3_000_000,
        completion=15_000_000, thinking=15_000_000,
    )  # fmt: skip


def test_a_tier_has_the_prices_of_its_row_where_it_has_none() -> None:
    """A long prompt makes nothing free. The tier's prompt price holds for its cached parts."""
    own = {"prompt_usd_per_mtok": 3, "cache_read_usd_per_mtok": 1, "completion_usd_per_mtok": 15}
    price = Price.from_config(
        row(**own, tiers=[
            {"above_prompt_tokens": 10, "prompt_usd_per_mtok": 6},
            {"above_prompt_tokens": 1000, "completion_usd_per_mtok": 30},
        ])
    )  # fmt: skip
    dearer_prompt, dearer_completion = price.tiers

    assert (dearer_prompt.prompt, dearer_prompt.cache_read) == (6_000_000, 6_000_000)
    assert (dearer_prompt.completion, dearer_prompt.thinking) == (15_000_000, 15_000_000)
    assert (dearer_completion.prompt, dearer_completion.cache_read) == (3_000_000, 1_000_000)
    assert (dearer_completion.completion, dearer_completion.thinking) == (30_000_000, 30_000_000)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prompt_usd_per_mtok": "0.0000001"}, "prompt_usd_per_mtok: has more than 6 decimals"),
        ({"completion_usd_per_mtok": -1}, "completion_usd_per_mtok: must be from 0"),
        ({"thinking_usd_per_mtok": "NaN"}, "thinking_usd_per_mtok: must be from 0"),
        ({"request_usd": "0.0000000000001"}, "request_usd: has more than 12 decimals"),
        ({"tiers": [{"above_prompt_tokens": 0}]}, "above_prompt_tokens must be positive"),
        ({"prompt_usd": "1"}, "unknown field `prompt_usd`"),
    ],
)
def test_a_price_that_cannot_be_billed_is_refused(keys: dict[str, object], said: str) -> None:
    """The message names the key."""
    with pytest.raises(msgspec.ValidationError, match=said):
        row(**keys)


def test_a_price_is_found_in_a_row_with_other_fields() -> None:
    """A row of the configuration has other fields besides the price."""

    class Row(msgspec.Struct):
        name: str
        prompt_usd_per_mtok: Decimal | None = None
        cache_read_usd_per_mtok: Decimal | None = None
        cache_write_usd_per_mtok: Decimal | None = None
        cache_write_1h_usd_per_mtok: Decimal | None = None
        completion_usd_per_mtok: Decimal | None = None
        thinking_usd_per_mtok: Decimal | None = None
        prompt_audio_usd_per_mtok: Decimal | None = None
        prompt_image_usd_per_mtok: Decimal | None = None
        completion_audio_usd_per_mtok: Decimal | None = None
        completion_image_usd_per_mtok: Decimal | None = None
        request_usd: Decimal | None = None
        provider_tools_usd: dict[str, Decimal] = {}
        tiers: tuple[TierConfig, ...] = ()

    assert PriceConfig.of(Row("m", completion_usd_per_mtok=Decimal(2))) == PriceConfig(
        completion_usd_per_mtok=Decimal(2)
    )
    with pytest.raises(ValueError, match="request_usd"):
        PriceConfig.of(Row("m", request_usd=Decimal(-1)))


def test_json_keeps_the_price() -> None:
    """A hold stores the price at its admission, tiers included."""
    price = Price(prompt=3, request=7, tiers=(Tier(above_prompt_tokens=10, prompt=6),))

    assert msgspec.json.decode(price.to_json(), type=Price) == price
    assert FREE.to_json() == "{}"


counts = st.integers(0, 2_000_000)
rates = st.integers(0, 10**9)
parts = st.tuples(*[counts] * 10)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Prices with rising tiers."""
    names = Price.__struct_fields__[:10]
    base = draw(st.tuples(*[rates] * len(names)))
    rises = draw(st.tuples(*[rates] * len(names)))
    higher = {name: one + more for name, one, more in zip(names, base, rises, strict=True)}
    tier = Tier(above_prompt_tokens=draw(st.integers(1, 3_000_000)), **higher)
    lower = dict(zip(names, base, strict=True))
    return Price(request=draw(rates), tiers=(tier,), **lower)


def usage_of(parts: tuple[int, ...]) -> Usage:
    """Build a usage from disjoint parts."""
    fresh, read, write, hour, text, thinking, *media = parts
    heard, seen, sound, pictures = media
    return Usage(
        prompt_token_count=fresh + read + write + hour + heard + seen,
        prompt_audio_token_count=heard,
        prompt_image_token_count=seen,
        completion_audio_token_count=sound,
        completion_image_token_count=pictures,
        cache_read_token_count=read,
        cache_write_token_count=write + hour,
        cache_write_1h_token_count=hour,
        completion_token_count=text + thinking + sound + pictures,
        thinking_token_count=thinking,
    )


@given(prices(), parts, st.integers(0, 9), st.integers(1, 1000), st.integers(0, 10_000))
def test_more_tokens_never_cost_less(
    price: Price, parts: tuple[int, ...], index: int, more: int, markup_bp: int
) -> None:
    """The cost is monotone in every part."""
    larger = [count + more * (place == index) for place, count in enumerate(parts)]

    less = cost_nano(usage_of(parts), price, markup_bp=markup_bp)
    assert less <= cost_nano(usage_of(tuple(larger)), price, markup_bp=markup_bp)


@given(prices(), parts, counts, counts, st.integers(0, 10_000))
def test_an_estimate_is_never_exceeded(
    price: Price, parts: tuple[int, ...], spare_prompt: int, spare: int, markup_bp: int
) -> None:
    """A call within the estimated numbers of tokens costs at most the estimate."""
    usage = usage_of(parts)

    estimate = Tariff(price, markup_bp).estimate_nano(
        usage.prompt_token_count + spare_prompt, usage.completion_token_count + spare
    )

    assert cost_nano(usage, price, markup_bp=markup_bp) <= estimate


@given(
    st.tuples(rates, rates, rates, rates),
    st.tuples(counts, counts, counts, counts),
)
def test_no_report_makes_tokens_free(priced: tuple[int, ...], reported: tuple[int, ...]) -> None:
    """Parts beyond their total: each token costs at least the lowest rate of its kind."""
    prompt_rate, read_rate, write_rate, completion_rate = priced
    prompt, read, write, completion = reported
    price = Price(
        prompt=prompt_rate,
        cache_read=read_rate,
        cache_write=write_rate,
        cache_write_1h=write_rate,
        completion=completion_rate,
        thinking=completion_rate,
    )
    usage = Usage(
        prompt_token_count=prompt,
        cache_read_token_count=read,
        cache_write_token_count=write,
        completion_token_count=completion,
        thinking_token_count=completion + read,
    )

    least = prompt * min(prompt_rate, read_rate, write_rate) + completion * completion_rate
    assert cost_nano(usage, price) * 1000 >= least


def test_calls_of_the_providers_tools_have_prices() -> None:
    """Beside the tokens; a tool without a price costs nothing."""
    price = Price.from_config(row(prompt_usd_per_mtok=1))
    price = msgspec.structs.replace(price, provider_tools={"web_search": 10**10})
    usage = Usage(
        prompt_token_count=1_000, provider_tool_counts={"web_search": 3, "code_execution": 2}
    )
    assert cost_nano(usage, price) == 1_000_000 + 3 * 10**7
    assert cost_nano(usage, price, markup_bp=1_000) == 1_100_000 + 33 * 10**6
    assert msgspec.json.decode(price.to_json(), type=Price) == price


def test_prices_of_tools_add_to_those_of_the_model() -> None:
    """Shipped by dialect; a row with them alone keeps the shipped price of the model."""
    shipped = {"anthropic/claude": Price(prompt=5)}
    channels = [
        ChannelConfig(name="a", dialect="anthropic", models={"anthropic/claude": "claude"}),
        ChannelConfig(name="o", dialect="openai", models={"house/m": "m"}),
    ]
    rows = {
        "anthropic/claude": row(provider_tools_usd={"code": Decimal("0.5")}),
        "house/m": row(prompt_usd_per_mtok=1, provider_tools_usd={"web_search": Decimal(1)}),
    }
    prices = PriceList(rows, shipped, channels)
    claude, own = prices.lookup("anthropic/claude"), prices.lookup("house/m")
    assert claude is not None
    assert claude.prompt == 5
    assert claude.provider_tools == {
        "web_search": 10**10,
        "web_fetch": 0,
        "code": 5 * 10**11,
    }
    assert own is not None
    assert own.provider_tools == {"web_search": 10**12}


def test_a_price_of_a_tool_must_be_exact() -> None:
    """Like that of a request."""
    with pytest.raises(ValueError, match=r"provider_tools_usd\.web_search"):
        row(provider_tools_usd={"web_search": Decimal("-0.01")})
