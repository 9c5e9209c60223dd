"""Facts of models: what is listed is what is charged, and what is said to be honoured is sent."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest

from gateway.surfaces.models.model_members import members_of
from services.capabilities import lookup
from services.common.contract.models import read_model, to_model_message
from services.config import ChannelConfig, Quirks
from services.config.prices import PriceConfig, TierConfig
from services.domain.conversation import Message, TextPart
from services.domain.model import Model
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking, Tool, ToolChoice
from services.domain.usage import Usage
from services.errors import Failure
from services.metering.price_list import load_shipped
from services.metering.prices import FREE, Price, Rates, Tariff
from services.models.model_facts import ModelFacts
from services.providers.base import ModelRoute, Notes, Target
from services.providers.registry import DIALECTS, PARAMETER_NAMES

NO_TIMES: Any = None
FACTS = ModelFacts(NO_TIMES, PARAMETER_NAMES)
DECIMAL = re.compile(r"(0|[1-9]\d*)(\.\d*[1-9])?")
MEDIA = Price.from_config(
    PriceConfig(
        prompt_usd_per_mtok=Decimal(3),
        cache_read_usd_per_mtok=Decimal("0.3"),
        cache_write_usd_per_mtok=Decimal("3.75"),
        cache_write_1h_usd_per_mtok=Decimal(6),
        completion_usd_per_mtok=Decimal(15),
        thinking_usd_per_mtok=Decimal("15.000001"),
        prompt_audio_usd_per_mtok=Decimal("0.000007"),
        prompt_image_usd_per_mtok=Decimal("9.999999"),
        completion_audio_usd_per_mtok=Decimal(80),
        completion_image_usd_per_mtok=Decimal("0.000001"),
        request_usd=Decimal("0.001"),
        tiers=(
            TierConfig(above_prompt_tokens=1000, prompt_usd_per_mtok=Decimal(6)),
            TierConfig(above_prompt_tokens=200_000, prompt_audio_usd_per_mtok=Decimal(4)),
        ),
    )
)
"""A price of which every kind has its own."""


def route(model: str, dialect: str = "openai", quirks: Quirks | None = None) -> ModelRoute:
    """Return the route of a model at one channel."""
    channel = ChannelConfig(
        name="c", dialect=dialect, base_url="http://v.test", quirks=quirks or Quirks()
    )
    name = model.rpartition("/")[2]
    target = Target(
        channel=channel,
        model=name,
        public_model=model,
        capabilities=lookup(name, dialect=dialect),
    )
    return ModelRoute(model=model, base_model=model, targets=[target])


def listed(price: Price, markup_bp: int, model: str = "house/model") -> Mapping[str, Any]:
    """Return the prices as the JSON of the list has them, after a way over gRPC."""
    made = FACTS.model(route(model), price, markup_bp, 0)
    shown = members_of(read_model(to_model_message(made)))
    return json.loads(json.dumps(shown["pricing"]))  # type: ignore[no-any-return]


def charge_by_list(prices: Mapping[str, Any], usage: Usage) -> int:
    """Return what a reader of the list expects a call to cost, in nano-USD."""
    rates = dict(prices)
    for override in prices.get("overrides", ()):
        if usage.prompt_token_count > override["min_prompt_tokens"]:
            rates |= override
    kinds = {
        "input_cache_read": usage.cache_read_token_count,
        "input_cache_write": usage.cache_write_token_count - usage.cache_write_1h_token_count,
        "input_cache_write_1h": usage.cache_write_1h_token_count,
        "internal_reasoning": usage.thinking_token_count,
        "audio": usage.prompt_audio_token_count,
        "image_token": usage.prompt_image_token_count,
        "audio_output": usage.completion_audio_token_count,
        "image_output": usage.completion_image_token_count,
    }
    cached = usage.cache_read_token_count + usage.cache_write_token_count
    prompt = usage.prompt_token_count - cached
    completion = usage.completion_token_count - usage.thinking_token_count
    for name in ("audio", "image_token"):
        prompt -= kinds[name] if name in rates else 0
    for name in ("audio_output", "image_output"):
        completion -= kinds[name] if name in rates else 0
    kinds |= {"prompt": prompt, "completion": completion}
    total = sum(Decimal(rates.get(name, 0)) * count for name, count in kinds.items())
    total += Decimal(rates["request"])
    return int((total * 10**9).to_integral_value(ROUND_CEILING))


def usages(chance: random.Random) -> Iterator[Usage]:
    """Yield consistent usages with tokens of every kind."""
    for size in (0, 1, 90, 1_000, 1_001, 150_000, 999_983):
        plain, read, write, hour, sound, image, said, thought, heard, seen = (
            chance.randrange(size + 1) for _ in range(10)
        )
        yield Usage(
            prompt_token_count=plain + read + write + hour + sound + image,
            cache_read_token_count=read,
            cache_write_token_count=write + hour,
            cache_write_1h_token_count=hour,
            prompt_audio_token_count=sound,
            prompt_image_token_count=image,
            completion_token_count=said + thought + heard + seen,
            thinking_token_count=thought,
            completion_audio_token_count=heard,
            completion_image_token_count=seen,
        )


@pytest.mark.parametrize("markup_bp", [0, 1, 1_250, 9_999, 30_000])
def test_the_listed_price_is_what_is_charged(markup_bp: int) -> None:
    """For every priced model and usage, tiers and media too, to the nano-USD."""
    chance = random.Random(markup_bp)  # noqa: S311 - a test repeats itself
    prices = {**load_shipped(), "house/media": MEDIA, "house/free": FREE}
    for name, price in prices.items():
        shown = listed(price, markup_bp, name)
        for usage in usages(chance):
            charge = Tariff(price, markup_bp).cost_nano(usage)
            assert charge_by_list(shown, usage) == charge, (name, usage)


def test_prices_are_decimal_numbers_without_exponent() -> None:
    """Also the smallest and the largest."""
    dear = Price(prompt=1, completion=10**9, request=123 * 10**12)
    for price in (MEDIA, dear, *load_shipped().values()):
        for markup_bp in (0, 1):
            shown = listed(price, markup_bp)
            amounts = [value for value in shown.values() if not isinstance(value, list)]
            assert all(DECIMAL.fullmatch(amount) for amount in amounts), amounts
    assert listed(dear, 1)["prompt"] == "0.0000000000010001"
    assert listed(dear, 0)["request"] == "123"


def test_every_rate_is_listed() -> None:
    """No kind of token has a price that the list does not show."""
    for name in Rates.__struct_fields__:
        free = listed(FREE, 0)
        assert listed(Price(**{name: 5_000_000}), 0) != free, name  # type: ignore[arg-type]


VALUES: Mapping[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "top_a": 0.5,
    "min_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "seed": 7,
    "stop": ["END"],
    "logit_bias": {1: 2.0},
    "parallel_tool_calls": False,
    "verbosity": "low",
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "max_tokens": 2_000,
    "tools": [Tool(name="f")],
    "tool_choice": ToolChoice(mode="auto"),
    "structured_outputs": ResponseFormat(
        type="json_schema", name="a", schema_json=b'{"type":"object","additionalProperties":false}'
    ),
    "response_format": ResponseFormat(type="json_object"),
    "reasoning": Thinking(mode="enabled"),
    "reasoning_effort": "high",
}
"""A value of each listed parameter."""
FIELDS = {"structured_outputs": "response_format", "reasoning": "thinking"}
NEEDS: Mapping[str, Mapping[str, Any]] = {
    "parallel_tool_calls": {"tools": VALUES["tools"]},
    "tool_choice": {"tools": VALUES["tools"]},
    "top_logprobs": {"logprobs": True},
}
SAME = {"include_reasoning", "max_completion_tokens"}
"""Other names of parameters that are tried by one of their names."""


def is_honoured(name: str, target: Target) -> bool:
    """Return whether a request with the parameter is sent with it, as its notes tell."""
    said = Message(role="user", content=[TextPart(text="Hello")])
    fields = {**NEEDS.get(name, {}), FIELDS.get(name, name): VALUES[name]}
    spec = ChatCompletionSpec(model="m", messages=[said], **fields)
    notes = Notes()
    try:
        DIALECTS[target.channel.dialect].encode(spec, target, notes)
    except Failure:
        return False
    return not any(note.action == "dropped" for note in notes.all)


@pytest.mark.parametrize(
    ("dialect", "model"),
    [
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-8"),
        ("anthropic", "claude-3-haiku-20240307"),
        ("openai", "gpt-4o"),
        ("openai", "gpt-5-mini"),
        ("openai", "o3"),
        ("openai", "gemini-2.5-pro"),
        ("openai", "deepseek-chat"),
        ("openai", "unheard-of"),
        ("openai-responses", "gpt-5.1"),
        ("openai-responses", "gpt-4o"),
        ("openrouter", "claude-sonnet-4-5"),
        ("openrouter", "gpt-5.1"),
    ],
)
def test_a_listed_parameter_is_sent_and_another_is_not(dialect: str, model: str) -> None:
    """By the notes of a request with it."""
    one = route(f"house/{model}", dialect)
    supported = set(FACTS.model(one, FREE, 0, 0).supported_parameters) - SAME
    honoured = {name for name in VALUES if is_honoured(name, one.targets[0])}

    assert supported <= VALUES.keys()
    assert supported <= honoured
    unlisted = honoured - supported
    assert unlisted <= {"reasoning", "reasoning_effort", "structured_outputs", "tool_choice"}


def test_quirks_of_a_channel_count() -> None:
    """A parameter that one channel of the first priority lacks is not listed."""
    lacking = route("house/m", quirks=Quirks(drops=("seed", "tools", "response_format")))
    both = ModelRoute(
        model="house/m", base_model="house/m", targets=[*route("house/m").targets, *lacking.targets]
    )
    supported = FACTS.model(both, FREE, 0, 0).supported_parameters

    assert "temperature" in supported
    assert not {"seed", "tools", "tool_choice", "response_format"} & set(supported)


def facts(model: str, dialect: str) -> Model:
    """Return the facts of a model by its price in the shipped list."""
    price = load_shipped().get(model, FREE)
    return FACTS.model(route(model, dialect), price, 0, 0)


def test_windows_and_modalities_of_known_models() -> None:
    """Under the names of providers, snapshots and Bedrock, too."""
    claude = facts("anthropic/claude-sonnet-4-5", "anthropic")
    assert claude.context_token_count == 200_000
    assert claude.input_modalities == ["text", "image", "file"]
    assert claude.output_modalities == ["text"]
    assert facts("openai/gpt-4o", "openai").context_token_count == 128_000
    assert facts("openai/gpt-3.5-turbo", "openai").input_modalities == ["text"]
    assert facts("house/unheard-of", "openai").context_token_count == 0
    for name in ("claude-sonnet-4-5-20250929", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"):
        assert facts(f"x/{name}", "anthropic").context_token_count == 200_000


def test_models_of_embeddings_are_named_so() -> None:
    """They take no parameters of completions."""
    embedder = facts("openai/text-embedding-3-small", "openai")
    assert embedder.output_modalities == ["embeddings"]
    assert embedder.supported_parameters == []
    assert embedder.context_token_count == 8_192


def test_every_dialect_has_names_of_parameters() -> None:
    """Otherwise its models could not be listed."""
    assert PARAMETER_NAMES.keys() == DIALECTS.keys()


def test_most_shipped_models_have_a_window() -> None:
    """The list of windows fits the list of prices."""
    names = load_shipped()
    known = [name for name in names if lookup(name).context_tokens]
    assert len(known) > 0.7 * len(names)
