"""Rules between the values of a configuration."""

from __future__ import annotations

import msgspec
import pytest

from services.config import (
    ChannelConfig,
    Config,
    LimitConfig,
    ModelConfig,
    Secret,
    StateConfig,
    TracesConfig,
    rules,
)

DIALECTS = ("openrouter", "openai", "anthropic")

GOOD = ChannelConfig(
    name="a", dialect="openai", base_url="https://a.test/v1", models={"m": "m", "n": "n"}
)


def channel_problems(**changes: object) -> list[str]:
    """Problems of a valid channel with these changes."""
    channel = msgspec.structs.replace(GOOD, **changes)
    return list(rules.channels(Config(channels=(channel,)), DIALECTS))


def model_problems(*models: ModelConfig) -> list[str]:
    """Problems of these models of a valid channel."""
    return list(rules.models(Config(channels=(GOOD,), models=models)))


def test_a_valid_channel_has_no_problems() -> None:
    """The rules yield nothing."""
    assert channel_problems() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": " "}, "name: is empty"),
        ({"dialect": "oepnai"}, "dialect: 'oepnai' is not one of anthropic, openai, openrouter"),
        (
            {"dialect": "anthropic", "responses": "never"},
            "responses: only channels of dialect 'openai' choose between two APIs",
        ),
        ({"base_url": ""}, "base_url: is missing"),
        ({"local": "smollm2-135m"}, "base_url: not allowed for a local model"),
        (
            {"base_url": "", "local": "gpt"},
            "local: 'gpt' is not one of scripted, smollm2-135m, smollm2-135m-embeddings",
        ),
        (
            {"api_key_env": "K", "api_key_file": "f"},
            "api_key_file: the channel has api_key_env already",
        ),
        ({"models": {}}, "models: the channel has none"),
        ({"models": {"m": ""}}, "models.'m': a name is empty"),
        ({"headers": {"x-a": "1\r\nx-b: 2"}}, "headers.'x-a': must be printable"),
        ({"headers": {"x a": "1"}}, "headers.'x a': is not the name of a header"),
        ({"headers": {"Host": "b"}}, "headers.'Host': the gateway sets this header itself"),
        ({"headers_env": {"a:": "A"}}, "headers.'a:': is not the name of a header"),
        ({"query": {"a": "1\r\n"}}, "query.'a': must be printable"),
        (
            {"headers": {"a": "1"}, "headers_env": {"a": "A"}},
            "headers_env.'a': the channel has this header already",
        ),
    ],
)
def test_reports_each_problem_of_a_channel(changes: dict[str, object], problem: str) -> None:
    """The message has the key."""
    (said,) = channel_problems(**changes)

    assert said.partition(".")[2] == problem


@pytest.mark.parametrize(
    "url",
    [
        *("a.test/v1", "ftp://a.test", "http://", "http:///v1", "http://[::1", "http://a.test:0"),
        *("http://a.test:99999", "http://a b.test", "http://a.test/\n"),
        *("http://user:word@a.test/v1", "http://a.test/v1?version=1", "http://a.test/#v1"),
    ],
)
def test_refuses_an_invalid_base_url(url: str) -> None:
    """A base URL has scheme, host, port and path, and no password."""
    (said,) = channel_problems(base_url=url)

    assert said.startswith("channels[0] (a).base_url: must ")
    assert "word" not in said.replace("password", "")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://a.test/v1/chat/completions", "/chat/completions"),
        ("https://a.test/openai/chat/completions/", "/chat/completions"),
        ("https://a.test/v1/messages", "/messages"),
        ("https://a.test/v1/embeddings", "/embeddings"),
    ],
)
def test_refuses_the_address_of_one_api(url: str, path: str) -> None:
    """A quick start of a provider often has it. Every call would end at a URL with it twice."""
    (said,) = channel_problems(base_url=url)

    assert said == f"channels[0] (a).base_url: must not end with {path}, which the gateway adds"


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000", "https://a.test/api/v1", "http://[::1]:8"),
        "https://a.test/embeddings",
    ],
)
def test_accepts_a_base_url(url: str) -> None:
    """Any host, with or without port and path."""
    assert channel_problems(base_url=url) == []


def test_refuses_two_channels_of_one_name() -> None:
    """Metrics and limits know channels by name."""
    said = list(rules.channels(Config(channels=(GOOD, GOOD)), DIALECTS))

    assert said == ["channels: 'a' occurs 2 times"]


def test_refuses_a_model_that_no_channel_serves() -> None:
    """A row with a misspelt name, and its price, would have no effect."""
    (said,) = model_problems(ModelConfig(name="mm"))

    assert said == "models[0] (mm).name: no channel serves it; did you mean 'm'?"


def test_refuses_a_fallback_that_no_channel_serves() -> None:
    """The fallback could never answer."""
    (said,) = model_problems(ModelConfig(name="m", fallbacks=("x",)))

    assert said == "models[0] (m).fallbacks: no channel serves 'x'"


def test_accepts_thinking_names() -> None:
    """`-thinking` names are derived from models that are served."""
    assert model_problems(ModelConfig(name="m-thinking", fallbacks=("n-thinking",))) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"key": "*"}, ": limits nothing; give rpm, tpm or concurrency"),
        ({"model": "mm", "rpm": 1}, ".model: no channel serves 'mm'; did you mean 'm'?"),
        ({"model": "m-thinking", "rpm": 1}, ".model: no channel serves 'm-thinking'"),
        ({"channel": "ab", "rpm": 1}, ".channel: there is no channel 'ab'; did you mean 'a'?"),
        (
            {"key": "acme", "rpm": 1},
            ".key: must be '*' or the ID of a key, which begins with 'key-'",
        ),
    ],
)
def test_refuses_a_limit_that_would_limit_no_call(row: dict[str, object], problem: str) -> None:
    """Its operator would believe that there is one."""
    limit = msgspec.convert(row, LimitConfig)

    (said,) = rules.limits(Config(channels=(GOOD,), limits=(limit,)))

    assert said == f"limits[0]{problem}"


def test_accepts_limits_of_all_names() -> None:
    """Of each of a kind, of one, and of all together."""
    rows = (
        LimitConfig(rpm=1),
        LimitConfig(key="*", model="*", channel="*", concurrency=1),
        LimitConfig(key="key-4f1d", model="m", channel="a", tpm=1),
    )

    assert list(rules.limits(Config(channels=(GOOD,), limits=rows))) == []


def test_refuses_two_rows_of_one_model() -> None:
    """Only one of them could have effect."""
    (said,) = model_problems(ModelConfig(name="m"), ModelConfig(name="m"))

    assert said == "models: 'm' occurs 2 times"


def test_reports_a_circle_once() -> None:
    """The message has the circle of fallbacks."""
    (said,) = model_problems(
        ModelConfig(name="m", fallbacks=("n",)), ModelConfig(name="n", fallbacks=("m",))
    )

    assert said == "models: the fallbacks go in a circle: m → n → m"


def test_allows_one_fallback_for_several() -> None:
    """Two paths to one model are not a circle."""
    rows = (
        ModelConfig(name="m", fallbacks=("n",)),
        ModelConfig(name="m-thinking", fallbacks=("n",)),
    )

    assert model_problems(*rows) == []


def test_reports_names_that_need_quotes() -> None:
    """`m-1.5 = "x"` is a table in TOML."""
    row = {"name": "a", "models": {"m-1": {"5": "x"}}}

    (said,) = rules.unknown_keys({"channels": [row]}, Config)

    assert said == "channels[0] (a).models.m-1: a name with a dot needs quotes around it"


def test_a_resolved_secret_is_not_a_key_of_the_file() -> None:
    """The file names the source of a secret, and never contains it."""
    (said,) = rules.unknown_keys({"channels": [{"name": "a", "key": "sk"}]}, Config)

    assert said.startswith("channels[0] (a).key: no such key")


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (StateConfig(database_url=Secret("mysql://u:word@h")), "state.database_url"),
        (StateConfig(redis_url=Secret("http://u:word@h")), "state.redis_url"),
    ],
)
def test_refuses_a_database_of_another_scheme(state: StateConfig, problem: str) -> None:
    """The message does not show the URL."""
    (said,) = rules.state(state)

    assert said.startswith(f"{problem}: must begin with ")
    assert "word" not in said


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317", "http://u:p@c"])
def test_refuses_an_invalid_collector(endpoint: str) -> None:
    """An address without a scheme, of another protocol, or with a password in it."""
    (said,) = rules.traces(TracesConfig(endpoint=endpoint))

    assert said.startswith("traces.endpoint: ")
    assert not list(rules.traces(TracesConfig(endpoint="http://collector:4317")))


@pytest.mark.parametrize(
    ("name", "fallback"),
    [("a/text-embedding-3-small", "a/chat"), ("a/chat", "a/text-embedding-3-small")],
)
def test_embeddings_have_no_fallbacks(name: str, fallback: str) -> None:
    """Vectors of two models cannot be compared, and completions are no vectors."""
    channel = ChannelConfig(
        name="c", dialect="openai", models={each: each for each in (name, fallback)}
    )
    config = Config(channels=(channel,), models=(ModelConfig(name=name, fallbacks=(fallback,)),))

    (problem,) = rules.models(config)

    assert problem.endswith("fallbacks: no fallback computes the same embeddings")
