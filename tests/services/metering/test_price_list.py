"""Lists of prices: the shipped one, and the rows of the configuration before it."""

from __future__ import annotations

from decimal import Decimal
from importlib import resources

import msgspec
import pytest

from services.config import ChannelConfig
from services.domain.usage import Usage
from services.metering.price_list import PRICES_FILE, PriceList, load_shipped
from services.metering.prices import FREE, PICO_USD, Price
from tests.services.metering.price_rows import cost_nano, row


def test_the_shipped_table_prices_sound() -> None:
    """The models that speak are listed with the price of their sound, or not at all."""
    prices = {name: price for name, price in load_shipped().items() if "audio" in name}

    assert prices
    assert all(price.prompt_audio and price.completion_audio for price in prices.values())


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
