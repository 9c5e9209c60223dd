from __future__ import annotations

from decimal import Decimal
from importlib import resources

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import ChannelConfig
from services.config.prices import PriceConfig, TierConfig
from services.domain.usage import Usage
from services.metering.price_list import PRICES_FILE, PriceList, load_shipped
from services.metering.prices import FREE, PICO_USD, Price, Tariff, Tier

SONNET = Price.from_config(
    PriceConfig(
        prompt_usd_per_mtok=Decimal(3),
        cache_read_usd_per_mtok=Decimal("0.3"),
        cache_write_usd_per_mtok=Decimal("3.75"),
        cache_write_1h_usd_per_mtok=Decimal(6),
        completion_usd_per_mtok=Decimal(15),
    )
)


def cost_nano(usage: Usage, price: Price, *, markup_bp: int = 0) -> int:
    """Cost of a usage, with a markup."""
    return Tariff(price, markup_bp).cost_nano(usage)


def row(**keys: object) -> PriceConfig:
    """Row of the configuration."""
    return msgspec.convert(keys, PriceConfig)


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


def test_the_shipped_table_prices_sound() -> None:
    """The models that speak are listed with the price of their sound, or not at all."""
    prices = {name: price for name, price in load_shipped().items() if "audio" in name}

    assert prices
    assert all(price.prompt_audio and price.completion_audio for price in prices.values())


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


def test_the_configuration_overrides_the_shipped_list() -> None:
    """A row with a price replaces the shipped price, a row without one does not."""
    shipped = {"v/m": Price(prompt=5, completion=7), "v/n": Price(prompt=1)}
    prices = PriceList({"v/m": row(completion_usd_per_mtok="0.000009"), "v/n": row()}, shipped)

    assert prices.lookup("v/m") == Price(completion=9, thinking=9)
    assert prices.lookup("v/n") == Price(prompt=1)
    assert prices.lookup("v/o") is None


def test_free_is_not_unpriced() -> None:
    """A price of zero is a price."""
    prices = PriceList({"v/m": row(prompt_usd_per_mtok=0)}, {"v/m": Price(prompt=5)})

    assert prices.lookup("v/m") == FREE


def test_derived_names_have_the_price_of_their_base_model() -> None:
    """A `-thinking` name and an unlisted snapshot have the price of their model."""
    old = Price(prompt=9)
    prices = PriceList({}, {"v/m": Price(prompt=5), "v/m-2024-05-13": old})

    for name in ("v/m", "v/m-thinking", "v/m-20250929", "v/m-20250929-thinking", "v/m-2025-09-29"):
        assert prices.lookup(name) == Price(prompt=5)
    assert prices.lookup("v/m-2024-05-13-thinking") == old
    assert prices.lookup("v/m-mini") is None


def channel(dialect: str, public: str, upstream: str, **keys: object) -> ChannelConfig:
    """Build a channel with one model."""
    fields = {"name": "c", "dialect": dialect, "models": {public: upstream}, **keys}
    return msgspec.convert(fields, ChannelConfig)


@pytest.mark.parametrize(
    ("dialect", "upstream", "listed"),
    [
        ("anthropic", "claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"),
        ("openai", "gpt-5", "openai/gpt-5"),
        ("openai", "gpt-4o-2024-05-13", "openai/gpt-4o-2024-05-13"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
        ("openrouter", "claude-sonnet-4-5", None),
        ("openai", "my-own-model", None),
    ],
)
def test_a_price_is_found_by_dialect_and_upstream_name(
    dialect: str, upstream: str, listed: str | None
) -> None:
    """The public name may be any; a derived name has the same price."""
    shipped = load_shipped()
    for public in ("claude-sonnet-4-5", "house/fast", upstream):
        prices = PriceList({}, shipped, [channel(dialect, public, upstream)])
        expected = shipped[listed] if listed else shipped.get(public)

        found = prices.lookup(public)
        assert found == prices.lookup(f"{public}-thinking")
        own = found and msgspec.structs.replace(found, provider_tools={})
        assert own == expected
        assert prices.unpriced([public]) == ([] if expected else [public])


@pytest.mark.parametrize(
    ("dialect", "upstream", "usd"),
    [
        ("bedrock", "amazon.titan-embed-text-v2:0", "0.02"),
        ("cohere", "embed-v4.0", "0.12"),
        ("google", "gemini-embedding-001", "0.15"),
        ("openai", "text-embedding-3-small", "0.02"),
        ("vertex", "gemini-embedding-001", "0.15"),
    ],
)
def test_models_for_embeddings_have_prices(dialect: str, upstream: str, usd: str) -> None:
    """By their dialects, whatever their public names."""
    prices = PriceList({}, load_shipped(), [channel(dialect, "house/e", upstream)])

    found = prices.lookup("house/e")
    assert found is not None
    assert found.prompt == Decimal(usd) * 10**6


@pytest.mark.parametrize("name", ["voyage/voyage-4", "mistral/mistral-embed"])
def test_vendors_of_openais_dialect_have_prices_by_public_name(name: str) -> None:
    """Their channels do not say who they are."""
    assert name in load_shipped()


@pytest.mark.parametrize(
    ("upstream", "base_url", "usd"),
    [
        ("gpt-5.6", "https://api.openai.com/v1", {"web_search": "0.01", "file_search": "0.0025"}),
        ("gpt-4o", "https://api.openai.com/v1", {"file_search": "0.0025"}),
        ("gpt-4.1-mini", "https://api.openai.com/v1", {"file_search": "0.0025"}),
        ("gpt-5.6", "https://vendor.test/v1", {}),
        ("gpt-5.6", "https://api.openai.com.vendor.test/v1", {}),
    ],
)
def test_tools_of_openai_have_prices(upstream: str, base_url: str, usd: dict[str, str]) -> None:
    """At its own address alone: others that speak its APIs have other prices."""
    row_of = row(prompt_usd_per_mtok=1)
    served = channel("openai", "v/m", upstream, base_url=base_url)
    found = PriceList({"v/m": row_of}, {}, [served]).lookup("v/m")

    assert found is not None
    pico = {name: int(Decimal(each) * PICO_USD) for name, each in usd.items()}
    assert found.provider_tools == pico
    usage = Usage(provider_tool_counts={"web_search": 3, "file_search": 2})
    expected = sum(
        usage.provider_tool_counts[name] * Decimal(each) * 10**9 for name, each in usd.items()
    )
    assert cost_nano(usage, found) == expected


def test_the_name_comes_before_the_channels() -> None:
    """The order: own price, shipped price by public name, then channels by priority."""
    shipped = {"v/m": Price(prompt=1), "openai/a": Price(prompt=2), "openai/b": Price(prompt=3)}
    later = channel("openai", "v/x", "a", priority=5)
    first, without = channel("openai", "v/x", "b"), channel("openai", "v/x", "c", priority=-1)
    channels = [later, first, without, channel("openai", "v/m", "a"), channel("openai", "v/o", "a")]
    prices = PriceList({"v/o": row(prompt_usd_per_mtok="0.000007")}, shipped, channels)

    assert prices.lookup("v/m") == Price(prompt=1)
    assert prices.lookup("v/x") == Price(prompt=3)
    found = prices.lookup("v/o")
    assert found is not None
    assert found.prompt == 7


def test_a_model_of_this_machine_is_free() -> None:
    """Unless a vendor serves it, too, or it has a price."""
    local = channel("openai", "local/m", "m", local="smollm2-135m")
    vendor = channel("openai", "local/m", "m", base_url="https://vendor.test/v1")
    own = {"local/m": row(request_usd="0.001")}

    assert PriceList({}, {}, [local]).lookup("local/m") == FREE
    assert PriceList({}, {}, [local, vendor]).lookup("local/m") is None
    assert PriceList(own, {}, [local]).lookup("local/m") == Price(request=10**9)


def test_json_keeps_the_price() -> None:
    """A hold stores the price at its admission, tiers included."""
    price = Price(prompt=3, request=7, tiers=(Tier(above_prompt_tokens=10, prompt=6),))

    assert msgspec.json.decode(price.to_json(), type=Price) == price
    assert FREE.to_json() == "{}"


def test_the_shipped_list_is_exact() -> None:
    """Each shipped number is a whole number of picodollars, as written."""
    text = resources.files("services.metering").joinpath(PRICES_FILE).read_bytes()
    rows = msgspec.json.decode(text)["prices"]
    shipped = load_shipped()

    assert len(rows) == len(shipped) > 100
    for name, parts in rows.items():
        embeds = parts.keys() == {"prompt_usd_per_mtok"}
        for key in ("prompt", *(() if embeds else ("cache_read", "cache_write", "completion"))):
            exact = Decimal(parts[f"{key}_usd_per_mtok"]) * 10**6
            assert exact == int(exact) == getattr(shipped[name], key), name


@pytest.mark.parametrize(
    "name",
    [
        "anthropic/claude-sonnet-4-5-20250929",
        "anthropic/claude-sonnet-4-20250514-thinking",
        "anthropic/claude-sonnet-4.5",
        "openai/gpt-5",
    ],
)
def test_well_known_models_have_a_price(name: str) -> None:
    """Models of the shipped channels and of the API page have a price."""
    price = PriceList({}).lookup(name)

    assert price is not None
    assert 0 < price.cache_read < price.prompt < price.completion


def test_claudes_cache_for_an_hour_has_its_price_at_every_provider() -> None:
    """Twice the prompt's, as Anthropic says, wherever a write for five minutes has a price."""
    found = 0
    for name, price in load_shipped().items():
        if name.startswith("anthropic/") and price.cache_write > price.prompt:
            assert price.cache_write_1h == 2 * price.prompt, name
            found += 1
    assert found > 20


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
