"""The rows of `[[channels]]`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from services.common.config_tables import Count
from services.common.tls import UpstreamTls
from services.config.secret import Secret

LOCAL_MODELS = frozenset({"smollm2-135m", "smollm2-135m-embeddings", "scripted"})
"""Models of `services.local.local_models`."""

RESOLVED = frozenset(
    {
        ("ChannelConfig", "key"),
        ("ChannelConfig", "spare_keys"),
        ("ChannelConfig", "secret_headers"),
        ("ChannelConfig", "tls"),
    }
)
"""Fields that `load` fills in, by class. They are not keys of the file."""

Weight = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
DrainSeconds = Annotated[float, msgspec.Meta(gt=0, le=30)]


PassThrough = Literal["harmless"] | bool | tuple[str, ...]
"""Unknown fields that a channel passes on."""


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deviations of a vendor from its dialect. They are data, so that no code names a vendor."""

    drops: tuple[str, ...] = ()
    """Parameters that the vendor refuses. They are not sent; the answer has a note."""
    renames: dict[str, str] = {}
    """Parameters with another name there, such as `max_tokens` to `max_completion_tokens`."""
    stream_usage: bool = True
    """Whether `stream_options.include_usage` may be sent."""
    cache_control: bool = False
    """Whether the vendor takes `cache_control` in messages, tools and tool calls, as Alibaba's
    DashScope and LiteLLM do. The dialects `anthropic` and `openrouter` send it in any case."""
    anthropic_version: str = "2023-06-01"
    """Header of the same name. Only the `anthropic` dialect sends it."""


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Circuit breaker of a channel."""

    failures: Count = 5
    """Failures in a row, of one model with one key, that open the breaker."""
    cooldown_s: Seconds = 30.0
    """How long the breaker stays open at first. Doubled each time after, up to five minutes."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account with one provider."""

    name: str
    """Unique. Appears in logs and metrics, never in answers."""
    dialect: str
    """Dialect of the provider: a name in `services.providers.registry`."""
    base_url: str = ""
    """Address, such as `https://api.anthropic.com/v1`. Empty only with `local`."""
    local: str = ""
    """A model that `pomogator serve` runs, one of `LOCAL_MODELS`, in place of `base_url`."""
    api_key_env: str = ""
    """Environment variable with the key. Without it and `api_key_file` no key is sent."""
    api_key_file: str = ""
    """File with the key, relative to the configuration's folder."""
    keys_env: tuple[str, ...] = ()
    """Environment variables with several keys. Calls are spread over them, and after a key is
    refused (401, 402, 403, 429) the next one is tried."""
    models: dict[str, str] = {}
    """Public name = the provider's name. At least one."""
    priority: int = 0
    """Channels with a lower number are tried first."""
    weight: Weight = 1.0
    """Share of calls among channels of the same priority. A channel with recent failures or high
    latency gets less (`services/routing/health.py`). 0: only if the others fail."""
    headers: dict[str, str] = {}
    """Headers to send with every call, such as `HTTP-Referer`."""
    headers_env: dict[str, str] = {}
    """Headers whose values are secrets, such as Azure's `api-key`: names of the variables that have
    them."""
    responses: Literal["auto", "always", "never"] = "auto"
    """Whether requests go to OpenAI's Responses instead of its chat completions, where the dialect
    is `openai`. `auto`: those of models that only Responses have, and those with tools to models
    that reason, as the capability `responses_api` says. A server that turns out to have no
    Responses gets chat completions for ten minutes, unless `always`."""
    query: dict[str, str] = {}
    """Query of every call's URL, such as Azure's `api-version`."""
    pass_through: PassThrough = "harmless"  # noqa: S105 - no password
    """Unknown fields of a request to pass on: those that change neither price, model, storage nor
    any address (`services/providers/openai/harmless_fields.toml`). `true`, for a server of one's
    own: all but those that are never passed. `false`: none, nor whole requests in the form of the
    channel's own API. A list: the named ones, of which `harmless` stands for the table; only a list
    passes `metadata`, `service_tier`, `store` and `web_search_options`, by their names."""
    quirks: Quirks = Quirks()
    """Deviations from the dialect."""
    ca_file: str = ""
    """CA of the provider's certificate, in PEM, in place of the system's authorities; relative to
    the configuration's folder, as the next two."""
    client_certificate: str = ""
    """Certificate to present to the provider: the chain in PEM."""
    client_key: str = ""
    """Private key of `client_certificate`, in PEM. Empty: the same file has it."""
    connect_timeout_s: Seconds = 5.0
    """Timeout of connecting."""
    first_token_timeout_s: Seconds = 120.0
    """Timeout of the first event of an answer, or of the first byte of a whole answer. A whole one
    that is late is tried elsewhere, and then requested as a stream, which a long answer begins in
    time. While another channel could be asked, an attempt has at most half of the time until the
    caller's deadline."""
    progress_timeout_s: Seconds = 60.0
    """Timeout of each further event. Keep-alives do not count."""
    total_timeout_s: Seconds = 1800.0
    """Timeout of the whole answer."""
    max_concurrency: Count | None = None
    """In-flight calls. An excess call goes to the next channel."""
    breaker: BreakerConfig = BreakerConfig()
    """Circuit breaker."""
    on_disconnect: Literal["auto", "cancel", "drain"] = "auto"
    """After a caller has disconnected: cancel the provider's request, or read its answer to the end
    for its usage, for providers that bill it anyway. `auto`: read it where the model reasons
    without showing all of it, or where its row says that it is billed anyway (`billed_to_end`);
    where the prompt has media of unknown size, until the provider has counted it."""
    bills_abandoned: bool = True
    """Whether the provider bills a request that is cancelled after it was sent, before the answer:
    its caller left, or `first_token_timeout_s` passed. If so, a caller who gets no other answer
    is charged the prompt as the gateway counts it; with `false`, nothing. Limits on requests and
    tokens stay spent in either case."""
    drain_seconds: DrainSeconds = 30.0
    """Timeout of draining an answer."""
    trace_context: bool = False
    """Send `traceparent` to the provider. It shows the provider which calls belong together."""
    key: Secret = Secret("")
    """The first key. Resolved by `load`; not a key of the file."""
    spare_keys: tuple[Secret, ...] = ()
    """The other keys. Resolved by `load`; not a key of the file."""
    secret_headers: tuple[tuple[str, Secret], ...] = ()
    """The headers of `headers_env`. Resolved by `load`; not a key of the file."""
    tls: UpstreamTls | None = None
    """The certificates of the three files. Resolved by `load`; not a key of the file. None: the
    channel names none."""
