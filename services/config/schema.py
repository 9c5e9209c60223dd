"""Tables and keys of the configuration: one class per table, one documented field per key."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

import msgspec

from services.capabilities import CapabilityOverrides
from services.common.config_tables import BoundsConfig, Count, EdgeTableConfig, TracesConfig
from services.common.tls import UpstreamTls
from services.config.call_log import CallLogConfig
from services.config.limits import LimitConfig
from services.config.prices import PriceConfig, TierConfig
from services.config.prompt_cache import PromptCacheConfig
from services.config.reasoning import ReasoningConfig

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


class Secret:
    """A string that is shown only by `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


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
    """Instead of `base_url`: a model that `pomogator serve` runs, one of `LOCAL_MODELS`."""
    api_key_env: str = ""
    """Environment variable with the key. Without it and `api_key_file` no key is sent."""
    api_key_file: str = ""
    """File with the key, relative to the configuration's folder."""
    keys_env: tuple[str, ...] = ()
    """Instead: variables with several keys. Calls are spread over them, and after a key is refused
    (401, 402, 403, 429) the next one is tried."""
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

    @property
    def sent_headers(self) -> tuple[tuple[str, str], ...]:
        """All headers to send with every call."""
        if not self.secret_headers:
            return tuple(self.headers.items())
        secret = ((name, value.reveal()) for name, value in self.secret_headers)
        return (*self.headers.items(), *secret)

    def with_query(self, path: str) -> str:
        """Return a path below the base URL with the channel's query."""
        if not self.query:
            return path
        return f"{path}{'&' if '?' in path else '?'}{urlencode(self.query, quote_via=quote)}"

    tls: UpstreamTls | None = None
    """The three files. Resolved by `load`; not a key of the file. None: the channel names none."""


class ModelConfig(CapabilityOverrides, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts about a public model, which override the shipped capability table."""

    name: str
    """Public name."""
    fallbacks: tuple[str, ...] = ()
    """Public models to try after this one, in this order."""

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
    provider_tools_usd: dict[str, Decimal] = {}  # noqa: RUF012 - msgspec copies it
    tiers: tuple[TierConfig, ...] = ()
    """Price, by the keys of `PriceConfig`. Without any, the shipped price holds."""

    @property
    def price(self) -> PriceConfig:
        """Return the price."""
        return PriceConfig.of(self)

    def __post_init__(self) -> None:
        """Refuse a price that cannot be billed exactly."""
        _ = self.price


HOLDS_KEEP_DAYS_MIN = 62
"""Two months: reports of a month, and of budgets, read whole holds."""


class BillingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Billing."""

    unpriced: Literal["free", "refuse"] = "refuse"
    """Models without a price: refuse them to accounts that pay, or serve them free of charge.
    Unlimited accounts may use them, and models of this machine are free, in any case."""
    provider_tools: Literal["charge", "free", "refuse"] = "refuse"
    """Tools that a provider runs and bills besides tokens, such as web searches: leave them out of
    requests of accounts that pay, with a note; send those that have a price (`provider_tools_usd`),
    and charge each call that the provider reports; or send them all without a charge of their own.
    Unlimited accounts, and all on channels with `pass_through = true`, may use them anyway."""
    join_repeats: bool = True
    """Whether a request that an agent repeats in its session while the first one still runs, or was
    just drained, gets the answer of the first one, which is charged once. Calls with an idempotency
    key have their own rule."""
    holds_keep_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 400
    """Days after which the holds of ended calls are deleted, one row for each call, and their sums
    by account, day, model and key stay: 62 or more. 0: never. Read at the start."""
    tokenizer: bool = False
    """Count tokens that the provider has not counted with a vocabulary, not by the size of the
    text. Needs the extra `tokens`, one second at the start, and 80 MB."""

    def __post_init__(self) -> None:
        """Refuse a retention within which budgets are spent."""
        if 0 < self.holds_keep_days < HOLDS_KEEP_DAYS_MIN:
            raise ValueError(f"holds_keep_days must be 0, or at least {HOLDS_KEEP_DAYS_MIN}")


class KeysConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of all API keys."""

    on_revoke: Literal["end", "finish"] = "end"
    """In-flight calls of a revoked key: end them within seconds and charge what they have used, or
    let them finish."""
    per_account_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    """Valid keys of an account from which its tenant can make no more. Operators can."""


class AuditConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Audit log of changes by operators and tenants."""

    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 400
    """Days after which entries are deleted, some with each new one. 0: never."""

    @property
    def keep_ms(self) -> int:
        """`keep_days` in milliseconds."""
        return self.keep_days * 86_400_000


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Databases of the service. The URLs are secrets, since they may hold passwords."""

    database_url: Secret = Secret("")
    """`postgresql://…` for a fleet. Empty: SQLite in the state directory.
    The variable POMOGATOR_DATABASE_URL overrides it."""
    database_direct_url: Secret = Secret("")
    """URL of the database past a pooler such as PgBouncer, for notices of revoked keys. Empty: over
    `database_url`. The variable POMOGATOR_DATABASE_DIRECT_URL overrides it."""
    connections: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 16
    """Most connections of each process to the database server."""
    prepared_statements: Literal["auto", "named", "unnamed"] = "auto"
    """Whether statements are prepared by name, for poolers that can. `auto`: only where there is no
    pooler."""
    call_log_url: Secret = Secret("")
    """`postgresql://…` of the call log, where it is to be apart. Empty: the database of the rest.
    The variable POMOGATOR_CALL_LOG_URL overrides it."""
    redis_url: Secret = Secret("")
    """`redis://…` for limits that hold over a fleet. Empty: limits of each process.
    The variable POMOGATOR_REDIS_URL overrides it."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration."""

    defaults: bool = False
    """Add the shipped channels: those whose key's variable is set and whose names the file does
    not use."""
    channels: tuple[ChannelConfig, ...] = ()
    """Accounts with providers."""
    models: tuple[ModelConfig, ...] = ()
    """Facts about public models beyond the shipped table."""
    limits: tuple[LimitConfig, ...] = ()
    """Limits on requests, tokens and concurrency. Without any, there is no limit."""
    bounds: BoundsConfig = BoundsConfig()
    """Limits of one process."""
    edge: EdgeTableConfig = EdgeTableConfig()
    """Clients of an edge, and the proxies in front of it."""
    billing: BillingConfig = BillingConfig()
    """Billing."""
    keys: KeysConfig = KeysConfig()
    """Settings of all API keys."""
    audit: AuditConfig = AuditConfig()
    """Audit log."""
    client_certificates: dict[str, tuple[str, ...]] = {}
    """Names in certificates that may call a gRPC method, with `--tls-client-ca`: DNS names or URIs
    such as `spiffe://cluster.local/ns/web/sa/shop`, by method (`package.Service/Method`,
    `package.Service/*` or `*`), operators' methods included. Empty: every certificate may call
    every method."""
    prompt_cache: PromptCacheConfig = PromptCacheConfig()
    """Use of the providers' prompt caches."""
    reasoning: ReasoningConfig = ReasoningConfig()
    """Reasoning of models."""
    state: StateConfig = StateConfig()
    """Databases."""
    call_log: CallLogConfig = CallLogConfig()
    """Call log."""
    traces: TracesConfig = TracesConfig()
    """Export of traces."""

    @property
    def rules(self) -> Sequence[LimitConfig]:
        """All limits: `max_concurrency` of the channels, then `limits`, which override it."""
        own = (
            LimitConfig(channel=channel.name, concurrency=channel.max_concurrency)
            for channel in self.channels
            if channel.max_concurrency is not None
        )
        return (*own, *self.limits)
