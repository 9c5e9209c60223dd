"""Loading of the configuration: errors and their messages, and the sources of secrets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from services import config as configuration
from services.config import Config, ConfigError, LimitConfig, Secret
from services.providers.registry import DIALECTS
from tests.stand.certificates import Certificates

CHANNEL = """
[[channels]]
name = "a"
dialect = "openai"
base_url = "http://a.test/v1"
{more}
[channels.models]
"m" = "upstream-m"
"""

load = partial(configuration.load, dialects=DIALECTS)

DEPLOY = Path(__file__).parents[3] / "deploy"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file and returns its path."""

    def _write(text: str, **files: str) -> Path:
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        path = tmp_path / "pomogator.toml"
        path.write_text(text)
        return path

    return _write


def channel(more: str = "") -> str:
    """A file with one valid channel and `more` keys in it."""
    return CHANNEL.format(more=more)


def refusal(path: Path, env: dict[str, str] | None = None) -> str:
    """The error of `load`."""
    with pytest.raises(ConfigError) as refused:
        load(path, env or {})
    return str(refused.value)


def test_values_are_read_as_written(write: Write) -> None:
    """A whole number is valid for a float."""
    config = load(write(channel("weight = 3\npriority = 1\npass_through = ['seed']")), {})

    (only,) = config.channels
    assert only.name == "a"
    assert only.models == {"m": "upstream-m"}
    assert (only.weight, only.priority) == (3.0, 1)
    assert only.pass_through == ("seed",)
    assert not only.key


def test_an_empty_file_is_a_configuration(write: Write) -> None:
    """It has no channels."""
    assert load(write(""), {}) == Config()


def test_names_file_and_line_of_broken_toml(write: Write) -> None:
    """A syntax error is reported with its line."""
    path = write("[[channels]]\nname = \n")

    assert refusal(path).startswith(f"{path}: ")
    assert "line 2" in refusal(path)


def test_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is reported with its path."""
    path = tmp_path / "none.toml"

    assert refusal(path) == f"{path}: cannot be read: No such file or directory"


def test_names_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    """The error has the position of the byte."""
    path = tmp_path / "binary.toml"
    path.write_bytes(b"a = 1\n\xff")

    assert refusal(path) == f"{path}: is not UTF-8 at byte 6"


def test_names_key_row_and_reason_of_a_wrong_type(write: Write) -> None:
    """A value of a wrong type is reported with the row's name and the key."""
    path = write(channel("weight = 'much'"))

    assert refusal(path) == f"{path}: channels[0] (a).weight: expected float, got str"


def test_names_a_table_that_should_be_a_list(write: Write) -> None:
    """`[channels]` instead of `[[channels]]` is reported at its key."""
    said = refusal(write("[channels]\n"))
    assert said.endswith("channels: expected rows, each of which begins with [[channels]]")


def test_reports_all_unknown_keys_at_once(write: Write) -> None:
    """Each misspelt key is reported in its own line."""
    lines = refusal(write("defalts = true\n" + channel("wieght = 1"))).splitlines()

    assert [line.partition(": ")[2] for line in lines] == [
        "defalts: no such key; did you mean 'defaults'?",
        "channels[0] (a).wieght: no such key; did you mean 'weight'?",
    ]


def test_names_a_key_that_stands_below_the_models(write: Write) -> None:
    """TOML reads what follows `[channels.models]` as the names of models."""
    said = refusal(write(channel() + "\napi_key_env = 'A_KEY'\nlocal = 'm'\n"))

    assert said.endswith(
        "channels[0] (a).models.api_key_env: is a key of the channel; "
        "write it above [channels.models]"
    )


async def test_reads_the_key_from_its_variable(write: Write) -> None:
    """`api_key_env` names the variable; space around the key is not part of it."""
    config = load(write(channel("api_key_env = 'A_KEY'")), {"A_KEY": " sk-invented\n"})

    assert config.channels[0].key.reveal() == "sk-invented"


@pytest.mark.parametrize("env", [{}, {"A_KEY": ""}, {"A_KEY": " \n"}])
def test_refuses_a_variable_without_a_key(write: Write, env: dict[str, str]) -> None:
    """A variable that is unset or empty is an error, not a call without a key."""
    said = refusal(write(channel("api_key_env = 'A_KEY'")), env)

    assert said.endswith("channels[0] (a).api_key_env: the variable A_KEY is not set")


def test_reads_several_keys(write: Write) -> None:
    """`keys_env` names several variables; calls are spread over their keys."""
    config = load(write(channel("keys_env = ['ONE', 'TWO']")), {"ONE": "sk-1", "TWO": "sk-2"})

    (only,) = config.channels
    assert (only.key, only.spare_keys) == (Secret("sk-1"), (Secret("sk-2"),))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("keys_env = ['ONE', 'TWO']", "keys_env: the variable TWO is not set"),
        ("api_key_env = 'sk-secret'", "must be the name of a variable: letters, digits and _"),
        (
            "keys_env = ['ONE', 'sk-secret']",
            "must be the name of a variable: letters, digits and _",
        ),
        ("keys_env = ['ONE', 'ONE']", "keys_env: 'ONE' occurs 2 times"),
        (
            "keys_env = ['ONE']\napi_key_env = 'ONE'",
            "keys_env: the channel has api_key_env already",
        ),
    ],
)
def test_refuses_missing_and_duplicate_variables(write: Write, more: str, said: str) -> None:
    """Each variable is set and named once, in one of the three keys."""
    assert refusal(write(channel(more)), {"ONE": "sk-1"}).endswith(said)


def test_without_secrets_no_variable_is_needed(write: Write) -> None:
    """There are as many keys as the file names, and they are empty."""
    path = write(
        channel("keys_env = ['A', 'B', 'C']\nca_file = 'gone.pem'").replace("http:", "https:")
    )
    (row,) = load(path, {}, secrets=False).channels

    assert [key.reveal() for key in (row.key, *row.spare_keys)] == ["", "", ""]
    assert row.tls is None
    assert "is not set" in refusal(path)


def test_max_concurrency_is_a_limit(write: Write) -> None:
    """It equals a row of `[[limits]]` for the channel."""
    config = load(write(channel("max_concurrency = 3")), {})

    assert config.rules == (LimitConfig(channel="a", concurrency=3),)


def test_reads_the_key_from_its_file(write: Write) -> None:
    """`api_key_file` is relative to the configuration's folder."""
    config = load(write(channel("api_key_file = 'secret'"), secret="sk-invented\n"), {})

    assert config.channels[0].key.reveal() == "sk-invented"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file or directory"), ("\n", "is empty")],
)
def test_refuses_a_file_without_a_key(write: Write, content: str | None, reason: str) -> None:
    """A key file that is missing or empty is reported with its path."""
    files = {} if content is None else {"secret": content}
    path = write(channel("api_key_file = 'secret'"), **files)

    assert refusal(path).endswith(f"api_key_file: {path.parent / 'secret'} {reason}")


def test_refuses_a_key_with_a_line_break_and_does_not_show_it(write: Write) -> None:
    """A key with a line break could add a header."""
    said = refusal(write(channel("api_key_env = 'A_KEY'")), {"A_KEY": "sk-1\r\nx: y"})

    assert said.endswith("api_key_env: contains characters that no key has")
    assert "sk-1" not in said


def test_reads_headers_from_variables_and_the_query(write: Write) -> None:
    """A header's secret is in no file, and is not shown."""
    more = """headers = { x = "1" }
    headers_env = { api-key = "AZURE_KEY" }
    [channels.query]
    api-version = "2024-10-21"
    """
    (row,) = load(write(channel(more)), {"AZURE_KEY": "sk-1"}).channels

    assert (row.headers, row.query) == ({"x": "1"}, {"api-version": "2024-10-21"})
    assert row.secret_headers == (("api-key", Secret("sk-1")),)
    assert "sk-1" not in repr(row)
    assert refusal(write(channel(more))).endswith("headers_env: the variable AZURE_KEY is not set")
    said = refusal(write(channel(more)), {"AZURE_KEY": "sk-1\nx: y"})
    assert said.endswith("headers_env: contains characters that no key has")
    assert load(write(channel(more)), {}, secrets=False).channels[0].secret_headers == ()


def test_the_shipped_channels_pass_what_their_vendors_document() -> None:
    """OpenAI keeps and searches what its callers ask for; unknown fields pass as elsewhere."""
    env = {"OPENAI_API_KEY": "sk-1", "OPENROUTER_API_KEY": "sk-2"}
    channels = {row.name: row for row in load(None, env).channels}
    openai, openrouter = (channels[name].pass_through for name in ("openai", "openrouter"))

    assert "extra_content" in channels["openai"].quirks.drops
    assert isinstance(openai, tuple)
    assert {"harmless", "store", "metadata", "web_search_options"} <= set(openai)
    assert isinstance(openrouter, tuple)
    assert {"harmless", "annotations"} <= set(openrouter)


def test_reads_the_certificates_of_a_channel(write: Write, tmp_path: Path) -> None:
    """Relative to the file; a key may stand in the file of its certificate."""
    certificates = Certificates(tmp_path)
    certificate, key = certificates.issue("ours")
    certificates.write("both.pem", certificate.read_bytes() + key.read_bytes())

    def text(certificate: str, key: str) -> str:
        more = f'ca_file = "ca.pem"\nclient_certificate = "{certificate}"\nclient_key = "{key}"'
        return channel(more).replace("http:", "https:")

    before = load(write(text("ours.pem", "ours.key")), {})
    joint = load(write(text("both.pem", "")), {})

    (tls,) = (row.tls for row in before.channels)
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.key) == (certificates.ca, certificate, key)
    assert joint.channels[0].tls is not None
    assert before == load(write(text("ours.pem", "ours.key")), {})
    certificates.issue("ours")
    assert before != load(write(text("ours.pem", "ours.key")), {})


@pytest.mark.parametrize(
    ("more", "scheme", "said"),
    [
        ('ca_file = "gone.pem"', "https", "ca_file: "),
        ('ca_file = "pomogator.toml"', "https", "holds no certificate in PEM"),
        ('client_certificate = "ours.pem"', "https", "are no certificate and its key in PEM"),
        ('client_key = "ours.key"', "https", "client_key: the channel has no client_certificate"),
        ('ca_file = "ca.pem"', "http", "ca_file: only connections to https:// have certificates"),
    ],
)
def test_refuses_certificates_that_cannot_be_used(
    write: Write, tmp_path: Path, more: str, scheme: str, said: str
) -> None:
    """At the start, and not at the first call."""
    Certificates(tmp_path).issue("ours")
    path = write(channel(more).replace("http:", f"{scheme}:"))

    assert said in refusal(path)
    assert "channels[0] (a)." in refusal(path)


def test_shows_no_secret(write: Write) -> None:
    """No key and no URL with a password is in the configuration's representation."""
    path = write(channel("api_key_env = 'A_KEY'") + "[state]\nredis_url = 'redis://u:word@h'\n")

    shown = repr(load(path, {"A_KEY": "sk-invented"}))

    assert "sk-invented" not in shown
    assert "word" not in shown


def test_variables_override_the_file(write: Write) -> None:
    """POMOGATOR_DATABASE_URL and POMOGATOR_REDIS_URL override `[state]`."""
    path = write("[state]\ndatabase_url = 'postgresql://file'\n")
    env = {"POMOGATOR_DATABASE_URL": "postgresql://env", "POMOGATOR_REDIS_URL": "redis://env"}

    assert load(path, {}).state.database_url == Secret("postgresql://file")
    assert load(path, env).state.database_url == Secret("postgresql://env")
    assert load(path, env).state.redis_url == Secret("redis://env")


def test_serves_nothing_without_file_and_keys() -> None:
    """The shipped channels need their keys."""
    assert load(None, {}).channels == ()


@pytest.mark.parametrize("name", ["anthropic", "openai", "openrouter"])
def test_ships_a_channel_for_every_key_at_hand(name: str) -> None:
    """A provider's variable is enough to serve its models."""
    (only,) = load(None, {f"{name.upper()}_API_KEY": "sk-invented"}).channels

    assert only.name == only.dialect == name
    assert only.key == Secret("sk-invented")
    assert only.models


def test_adds_the_shipped_channels_on_demand(write: Write) -> None:
    """`defaults = true` adds to the file's channels; without it they stand alone."""
    env = {"OPENAI_API_KEY": "sk-invented"}

    with_defaults = load(write("defaults = true\n" + channel()), env)
    without = load(write(channel()), env)

    assert [row.name for row in with_defaults.channels] == ["a", "openai"]
    assert [row.name for row in without.channels] == ["a"]


def test_the_files_channel_replaces_the_shipped_one(write: Write) -> None:
    """Of two channels with one name the file's is used."""
    text = "defaults = true\n" + channel().replace('"a"', '"openai"')

    (only,) = load(write(text), {"OPENAI_API_KEY": "sk-invented"}).channels

    assert only.base_url == "http://a.test/v1"


def test_a_vendor_is_tried_before_a_broker() -> None:
    """A public model goes to its vendor first, and to OpenRouter after a failure."""
    env = {f"{name}_API_KEY": "k" for name in ("ANTHROPIC", "OPENAI", "OPENROUTER")}

    anthropic, openai, broker = load(None, env).channels

    assert anthropic.priority == openai.priority < broker.priority
    assert anthropic.models.keys() & broker.models.keys()
    assert openai.models.keys() & broker.models.keys()


@pytest.mark.parametrize(
    "path", sorted(DEPLOY.rglob("pomogator.toml")), ids=lambda path: path.parent.name
)
def test_the_shipped_configurations_are_valid(path: Path) -> None:
    """Each has the channel of a provider whose key is there."""
    assert load(path, {"OPENAI_API_KEY": "k"}).channels
