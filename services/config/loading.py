"""Loading of the configuration: the file, its secrets, the shipped channels, the variables."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from itertools import chain
from pathlib import Path

import msgspec

from services.common.config_tables import ConfigError
from services.common.tls import UpstreamTls
from services.config import client_certificates, rules, type_errors
from services.config.channels import ChannelConfig
from services.config.schema import Config, StateConfig
from services.config.secret import Secret

DEFAULTS = "defaults.toml"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

STATE_VARIABLES: Mapping[str, str] = {
    "POMOGATOR_DATABASE_URL": "database_url",
    "POMOGATOR_DATABASE_DIRECT_URL": "database_direct_url",
    "POMOGATOR_CALL_LOG_URL": "call_log_url",
    "POMOGATOR_REDIS_URL": "redis_url",
}


def load(
    path: Path | None,
    env: Mapping[str, str] = os.environ,
    *,
    dialects: Collection[str],
    secrets: bool = True,
) -> Config:
    """Read `path`, or the shipped default without one, and resolve its secrets from `env`.

    `dialects` are the names that channels may use: those of `services.providers.registry`. Without
    `secrets`, for commands that call no provider, channels have empty keys and no certificates.
    Raises ConfigError, with one line for each problem.
    """
    source = str(path or DEFAULTS)
    config = Config(defaults=True) if path is None else _parse(_read(path), source)
    certificates = client_certificates.problems(config.client_certificates)
    _refuse(source, [*rules.channels(config, dialects), *certificates])
    config = _with_keys(config, path, env) if secrets else _with_empty_keys(config)
    if config.defaults:
        config = _joined(config, _shipped(env))
    config = _with_state(config, env)
    late = (
        rules.models(config),
        rules.limits(config),
        rules.state(config.state),
        rules.traces(config.traces),
    )
    _refuse(source, chain.from_iterable(late))
    return config


def load_state(path: Path | None, env: Mapping[str, str] = os.environ) -> StateConfig:
    """Read only where the state is, for commands that call no provider and need no key of one.

    Raises ConfigError, also for what is wrong in the form of other tables.
    """
    source = str(path or DEFAULTS)
    config = _with_state(Config() if path is None else _parse(_read(path), source), env)
    _refuse(source, rules.state(config.state))
    return config.state


def _shipped(env: Mapping[str, str]) -> Config:
    """Return the shipped channels whose key's variable is set, and all shipped models."""
    config = _parse((resources.files(__package__) / DEFAULTS).read_text("utf-8"), DEFAULTS)
    channels = (channel for channel in config.channels if _variable(env, channel.api_key_env))
    return _with_keys(msgspec.structs.replace(config, channels=tuple(channels)), None, env)


def _joined(config: Config, shipped: Config) -> Config:
    """Add to `config` the shipped channels and models that it does not have."""
    own_channels = {channel.name for channel in config.channels}
    own_models = {model.name for model in config.models}
    channels = (
        *config.channels,
        *(channel for channel in shipped.channels if channel.name not in own_channels),
    )
    served = {name for channel in channels for name in channel.models}
    models = (
        *config.models,
        *(row for row in shipped.models if row.name in served - own_models),
    )
    return msgspec.structs.replace(config, channels=channels, models=models)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}") from None


def _parse(text: str, source: str) -> Config:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # Its message ends with line and column.
        raise ConfigError(f"{source}: {error}") from None
    _refuse(source, rules.unknown_keys(tables, Config))
    try:
        return msgspec.convert(tables, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {type_errors.located(str(error), tables)}") from None


def _decode(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def _refuse(source: str, problems: Iterable[str]) -> None:
    lines = [f"{source}: {problem}" for problem in problems]
    if lines:
        raise ConfigError("\n".join(lines))


def _with_keys(config: Config, path: Path | None, env: Mapping[str, str]) -> Config:
    """Resolve every channel's keys and certificates."""
    folder = path.parent if path else Path()
    channels, problems = [], []
    for index, channel in enumerate(config.channels):
        try:
            key, *spare = _keys(channel, folder, env)
            headers = tuple(
                (name, _key("headers_env", _set_variable("headers_env", variable, env)))
                for name, variable in channel.headers_env.items()
            )
            tls = _tls(channel, folder)
        except ConfigError as error:
            where = rules.label("channels", index, {"name": channel.name})
            problems.append(f"{where}.{error}")
        else:
            resolved = {"key": key, "spare_keys": tuple(spare), "tls": tls}
            channels.append(msgspec.structs.replace(channel, secret_headers=headers, **resolved))
    _refuse(str(path or DEFAULTS), problems)
    return msgspec.structs.replace(config, channels=tuple(channels))


def _with_empty_keys(config: Config) -> Config:
    """Give each channel as many keys as it names, all of them empty."""
    channels = (
        msgspec.structs.replace(channel, spare_keys=(Secret(""),) * (len(channel.keys_env) - 1))
        for channel in config.channels
    )
    return msgspec.structs.replace(config, channels=tuple(channels))


def _tls(channel: ChannelConfig, folder: Path) -> UpstreamTls | None:
    """Return the certificates of the channel, read once to see whether they can be used."""
    ca, certificate, key = (
        folder / name if name else None
        for name in (channel.ca_file, channel.client_certificate, channel.client_key)
    )
    if ca is None and certificate is None:
        return None
    try:
        return UpstreamTls.of_files(ca, certificate, key)
    except OSError as error:
        named = "client_certificate" if certificate else "ca_file"
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise ConfigError(f"{named}: {reason}") from None


def _keys(channel: ChannelConfig, folder: Path, env: Mapping[str, str]) -> Sequence[Secret]:
    """Return the channel's keys; one empty key if it names none."""
    if channel.api_key_env:
        return [_key("api_key_env", _set_variable("api_key_env", channel.api_key_env, env))]
    if channel.api_key_file:
        return [_key("api_key_file", _content(folder / channel.api_key_file))]
    keys = [_key("keys_env", _set_variable("keys_env", name, env)) for name in channel.keys_env]
    return keys or [Secret("")]


def _set_variable(source: str, name: str, env: Mapping[str, str]) -> str:
    value = _variable(env, name)
    if not value and not _VARIABLE.fullmatch(name):
        # It may be the key itself, which no message shows.
        raise ConfigError(f"{source}: must be the name of a variable: letters, digits and _")
    if not value:
        raise ConfigError(f"{source}: the variable {name} is not set")
    return value


def _key(source: str, key: str) -> Secret:
    # The key becomes a header. The message must not show the key.
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{source}: contains characters that no key has")
    return Secret(key)


def _content(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"api_key_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"api_key_file: {path} is not UTF-8") from None
    if not text:
        raise ConfigError(f"api_key_file: {path} is empty")
    return text


def _variable(env: Mapping[str, str], name: str) -> str:
    return env.get(name, "").strip()


def _with_state(config: Config, env: Mapping[str, str]) -> Config:
    """Override the URLs by the variables."""
    given = {
        key: Secret(url) for name, key in STATE_VARIABLES.items() if (url := _variable(env, name))
    }
    return msgspec.structs.replace(config, state=msgspec.structs.replace(config.state, **given))
