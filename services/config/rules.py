"""Rules of a configuration beyond the types of its values.

Every rule yields the problems that it finds, as `key: reason`.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from services.capabilities import lookup
from services.common.chat_names import THINKING_SUFFIX
from services.common.config_tables import TracesConfig
from services.common.header_names import HEADER_NAME, RESERVED_HEADERS
from services.common.key_format import KEY_ID
from services.config.channels import LOCAL_MODELS, RESOLVED, ChannelConfig
from services.config.schema import Config, StateConfig
from services.storage.opening import COUNTER_STORES, DATABASES
from services.storage.postgres_parameters import UrlError
from services.storage.postgres_url import parse_url

_ALL_CALLS = frozenset({"", "*"})
"""Values of a limit's `key`, `model` and `channel` that name nothing."""

_API_PATH = re.compile(r"/chat/completions$|(?<=/v1)/(completions|embeddings|messages|responses)$")
"""End of a URL that the gateway itself adds to an address."""

_MODEL_NAMES = frozenset({"local"})
"""Keys of a channel that may as well be names of models."""

KEY_SOURCES = ("api_key_env", "api_key_file", "keys_env")
"""Ways to name a channel's keys. A channel uses one of them."""


def unknown_keys(
    table: Mapping[str, object], shape: type[msgspec.Struct], where: str = ""
) -> Iterator[str]:
    """Yield the unknown keys of the file, each with the closest known key."""
    fields = {
        field.name: field.type
        for field in msgspec.structs.fields(shape)
        if (shape.__name__, field.name) not in RESOLVED
    }
    for key, value in table.items():
        if key not in fields:
            yield f"{where}{key}: no such key{hint(key, fields)}"
            continue
        inner = struct_in(fields[key])
        if inner and isinstance(value, Mapping):
            yield from unknown_keys(value, inner, f"{where}{key}.")
        elif inner and isinstance(value, list):
            for index, row in enumerate(value):
                if isinstance(row, Mapping):
                    yield from unknown_keys(row, inner, f"{where}{label(key, index, row)}.")
        elif isinstance(value, Mapping):
            yield from _split_names(value, f"{where}{key}")
            if (shape, key) == (ChannelConfig, "models"):
                yield from _misplaced_keys(value, fields, f"{where}{key}")


def channels(config: Config, dialects: Collection[str]) -> Iterator[str]:
    """Yield the problems of the channels."""
    counts = Counter(channel.name for channel in config.channels)
    yield from (f"channels: {name!r} occurs {n} times" for name, n in counts.items() if n > 1)
    for index, channel in enumerate(config.channels):
        where = label("channels", index, {"name": channel.name})
        yield from (f"{where}.{problem}" for problem in _channel(channel, dialects))


def models(config: Config) -> Iterator[str]:
    """Yield the problems of the models and their fallbacks."""
    served = {name for channel in config.channels for name in channel.models}
    counts = Counter(model.name for model in config.models)
    yield from (f"models: {name!r} occurs {n} times" for name, n in counts.items() if n > 1)
    for index, model in enumerate(config.models):
        where = label("models", index, {"name": model.name})
        if not _is_served(model.name, served):
            yield f"{where}.name: no channel serves it{hint(model.name, served)}"
        for fallback in model.fallbacks:
            if not _is_served(fallback, served):
                yield f"{where}.fallbacks: no channel serves {fallback!r}{hint(fallback, served)}"
    yield from _embedding_fallbacks(config)
    yield from _circles({model.name: model.fallbacks for model in config.models})


def limits(config: Config) -> Iterator[str]:
    """Yield the problems of the limits: rows that would limit no call."""
    served = {name for channel in config.channels for name in channel.models}
    named = {channel.name for channel in config.channels}
    for index, row in enumerate(config.limits):
        where = label("limits", index, {})
        if row.rpm is None and row.tpm is None and row.concurrency is None:
            yield f"{where}: limits nothing; give rpm, tpm or concurrency"
        if row.key not in _ALL_CALLS and not row.key.startswith(KEY_ID):
            yield f"{where}.key: must be '*' or the ID of a key, which begins with {KEY_ID!r}"
        if row.model not in _ALL_CALLS and row.model not in served:
            yield f"{where}.model: no channel serves {row.model!r}{hint(row.model, served)}"
        if row.channel not in _ALL_CALLS and row.channel not in named:
            yield f"{where}.channel: there is no channel {row.channel!r}{hint(row.channel, named)}"


def state(table: StateConfig) -> Iterator[str]:
    """Yield the problems of the databases. They show no URL."""
    for key, url, schemes in (
        ("state.database_url", table.database_url, DATABASES),
        ("state.database_direct_url", table.database_direct_url, DATABASES),
        ("state.call_log_url", table.call_log_url, DATABASES),
        ("state.redis_url", table.redis_url, COUNTER_STORES),
    ):
        beginnings = tuple(f"{scheme}://" for scheme in sorted(schemes))
        if url and not url.reveal().lower().startswith(beginnings):
            yield f"{key}: must begin with {' or '.join(beginnings)}"
        elif url and schemes is DATABASES:
            try:
                parse_url(url.reveal())
            except UrlError as error:
                yield f"{key}: {error}"


def traces(table: TracesConfig) -> Iterator[str]:
    """Yield the problems of the export of traces."""
    if table.endpoint:
        yield from (f"traces.endpoint: {reason}" for reason in _url(table.endpoint))


def label(key: str, index: int, row: Mapping[str, object]) -> str:
    """Return a row's name in messages: `channels[0] (anthropic)`."""
    name = row.get("name")
    return f"{key}[{index}] ({name})" if isinstance(name, str) and name else f"{key}[{index}]"


def hint(word: str, words: Collection[str]) -> str:
    """Return `; did you mean 'x'?` if one of `words` is close to `word`."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _channel(channel: ChannelConfig, dialects: Collection[str]) -> Iterator[str]:
    if not channel.name.strip():
        yield "name: is empty"
    if channel.dialect not in dialects:
        yield f"dialect: {channel.dialect!r} is not one of {', '.join(sorted(dialects))}"
    if channel.responses != "auto" and channel.dialect != "openai":
        yield "responses: only channels of dialect 'openai' choose between two APIs"
    yield from _address(channel)
    yield from _key_sources(channel)
    yield from _certificates(channel)
    if not channel.models:
        yield "models: the channel has none"
    for public, upstream in channel.models.items():
        if not public.strip() or not upstream.strip():
            yield f"models.{public!r}: a name is empty"
    yield from _call_options(channel)


def _call_options(channel: ChannelConfig) -> Iterator[str]:
    for key, values in (("headers", channel.headers), ("query", channel.query)):
        for name, value in values.items():
            if not (name + value).isprintable():
                yield f"{key}.{name!r}: must be printable"
    for name in (*channel.headers, *channel.headers_env):
        if not HEADER_NAME.fullmatch(name):
            yield f"headers.{name!r}: is not the name of a header"
        elif name.lower() in RESERVED_HEADERS:
            yield f"headers.{name!r}: the gateway sets this header itself"
    for name in channel.headers.keys() & channel.headers_env.keys():
        yield f"headers_env.{name!r}: the channel has this header already"


def _key_sources(channel: ChannelConfig) -> Iterator[str]:
    named = [key for key in KEY_SOURCES if getattr(channel, key)]
    yield from (f"{key}: the channel has {named[0]} already" for key in named[1:])
    counts = Counter(channel.keys_env)
    yield from (f"keys_env: {name!r} occurs {n} times" for name, n in counts.items() if n > 1)


def _certificates(channel: ChannelConfig) -> Iterator[str]:
    if channel.client_key and not channel.client_certificate:
        yield "client_key: the channel has no client_certificate"
    named = [key for key in ("ca_file", "client_certificate") if getattr(channel, key)]
    if named and not channel.base_url.startswith("https://"):
        yield f"{named[0]}: only connections to https:// have certificates"


def _address(channel: ChannelConfig) -> Iterator[str]:
    if channel.local and channel.base_url:
        yield "base_url: not allowed for a local model"
    elif channel.local:
        if channel.local not in LOCAL_MODELS:
            yield f"local: {channel.local!r} is not one of {', '.join(sorted(LOCAL_MODELS))}"
    elif not channel.base_url:
        yield "base_url: is missing"
    else:
        yield from (f"base_url: {reason}" for reason in _url(channel.base_url))
        if path := _API_PATH.search(channel.base_url.rstrip("/")):
            yield f"base_url: must not end with {path[0]}, which the gateway adds"


def _url(text: str) -> Iterator[str]:
    try:
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:  # The brackets of an IPv6 address, or the port.
        usable = False
    if not usable or not text.isprintable() or " " in text:
        yield "must be http://HOST[:PORT][/PATH] or https://…"
        return
    if url.username is not None:
        yield "must not contain a user or password; name the key with api_key_env or api_key_file"
    if url.query or url.fragment:
        yield "must end with the path, without fragment; `query` is a table of the channel"


def _is_served(name: str, served: Collection[str]) -> bool:
    # `-thinking` names are derived from the capability table, which this package does not know.
    return name in served or name.removesuffix(THINKING_SUFFIX) in served


def _embedding_fallbacks(config: Config) -> Iterator[str]:
    """Yield the fallbacks of models that compute embeddings, and to such models.

    Vectors of two models cannot be compared: a store that holds both finds nothing.
    """
    rows = {row.name: row for row in config.models}
    embedding = {
        name
        for channel in config.channels
        for name, upstream in channel.models.items()
        if lookup(upstream, rows.get(name), channel.dialect).embeddings is not None
    }
    for index, row in enumerate(config.models):
        if row.fallbacks and not embedding.isdisjoint((row.name, *row.fallbacks)):
            where = label("models", index, {"name": row.name})
            yield f"{where}.fallbacks: no fallback computes the same embeddings"


def _circles(fallbacks: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield each circle of fallbacks once."""
    reported: set[str] = set()
    for start in fallbacks:
        path = _path_back(start, fallbacks)
        if path and reported.isdisjoint(path):
            reported.update(path)
            yield f"models: the fallbacks go in a circle: {' → '.join([*path, start])}"


def _path_back(start: str, fallbacks: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names on a path from `start` back to it; empty if there is none."""
    paths, seen = [[start]], set[str]()
    while paths:
        path = paths.pop()
        for name in fallbacks.get(path[-1], ()):
            if name == start:
                return path
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return []


def _split_names(table: Mapping[str, object], where: str) -> Iterator[str]:
    """Yield names with unquoted dots. TOML reads `claude-3.5 = …` as a table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield f"{where}.{key}: a name with a dot needs quotes around it"


def _misplaced_keys(
    models: Mapping[str, object], keys: Collection[str], where: str
) -> Iterator[str]:
    """Yield keys of the channel below `[channels.models]`, where TOML reads names of models."""
    for key in models:
        if key in keys and key not in _MODEL_NAMES:
            yield f"{where}.{key}: is a key of the channel; write it above [channels.models]"


def struct_in(kind: object) -> type[msgspec.Struct] | None:
    """Return the class of the table or rows that a field holds."""
    for candidate in (kind, *typing.get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None
