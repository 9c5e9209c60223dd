"""What may stand in the configuration: one class per table, one documented field per key."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from services.capabilities import CapabilityOverrides
from services.common.config_tables import BoundsConfig, Count, TracesConfig
from services.config.limits import LimitConfig
from services.config.prices import PriceConfig, TierConfig

DIALECTS = frozenset({"anthropic", "openai", "openrouter"})
"""The names that `services.providers.registry` knows."""

LOCAL_MODELS = frozenset({"smollm2-135m"})
"""The names that `services.local.local_models` knows."""

RESOLVED = frozenset({("ChannelConfig", "key"), ("ChannelConfig", "spare_keys")})
"""Fields that `load` fills in, by class: they are no keys of the file."""

Weight = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
DrainSeconds = Annotated[float, msgspec.Meta(gt=0, le=30)]


class Secret:
    """A string that shows itself only when asked."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string."""
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
    """How a vendor departs from the dialect it speaks. Data, so that no code names a vendor."""

    drops: tuple[str, ...] = ()
    """Parameters that the vendor refuses: not sent, with a note."""
    renames: dict[str, str] = {}
    """Parameters that go by another name there, such as `max_tokens` to `max_completion_tokens`."""
    stream_usage: bool = True
    """Whether `stream_options.include_usage` may be sent."""
    anthropic_version: str = "2023-06-01"
    """The header of that name; only the `anthropic` dialect sends it."""


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a channel that fails is left alone, and for how long."""

    failures: Count = 5
    """Failures in a row, of one model with one key, after which it is."""
    cooldown_s: Seconds = 30.0
    """How long the first time. Doubled each time after, up to five minutes."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account with one upstream."""

    name: str
    """Unique. Appears in logs and metrics, never in answers."""
    dialect: str
    """How the upstream speaks: one of `DIALECTS`."""
    base_url: str = ""
    """Such as `https://api.anthropic.com/v1`. Empty only with `local`."""
    local: str = ""
    """Instead of `base_url`: a model that `pomogator serve` runs itself, one of `LOCAL_MODELS`."""
    api_key_env: str = ""
    """The variable that holds the key. Without this and `api_key_file` none is sent."""
    api_key_file: str = ""
    """The file that holds the key, seen from the configuration's folder."""
    keys_env: tuple[str, ...] = ()
    """Instead: the variables that hold several keys. Calls are spread over them, and where the
    provider refuses one (401, 402, 403, 429) the next is tried."""
    models: dict[str, str] = {}
    """Public name = upstream name. At least one."""
    priority: int = 0
    """Lower is tried first."""
    weight: Weight = 1.0
    """The share of calls among channels of the same priority. One that lately failed, or began
    late, gets less (`services/routing/health.py`); 0 is a reserve."""
    headers: dict[str, str] = {}
    """Sent with every call, such as `HTTP-Referer`."""
    pass_through: bool | tuple[str, ...] = True
    """Whether fields that we do not know are passed on: all, none, or the named ones."""
    quirks: Quirks = Quirks()
    """Departures from the dialect."""
    connect_timeout_s: Seconds = 5.0
    """How long a connection may take."""
    first_token_timeout_s: Seconds = 120.0
    """How long the provider may think before it says anything."""
    progress_timeout_s: Seconds = 60.0
    """How long it may say nothing of substance after that. Keep-alives do not count."""
    total_timeout_s: Seconds = 1800.0
    """How long an answer may take in all."""
    max_concurrency: Count | None = None
    """Calls at a time. When there are as many, the next channel is asked."""
    breaker: BreakerConfig = BreakerConfig()
    """When the channel is left alone."""
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    """What becomes of a call whose caller has left: the provider is told to stop, or its answer
    is read for its usage, begun or not, where the provider bills it all the same."""
    drain_seconds: DrainSeconds = 30.0
    """How long reading it may take."""
    trace_context: bool = False
    """Whether the provider is told which trace a call belongs to (`traceparent`). It could tell
    by it which calls belong together."""
    key: Secret = Secret("")
    """The key, or the first one. Resolved by `load`; not a key of the file."""
    spare_keys: tuple[Secret, ...] = ()
    """The other keys. Resolved by `load`; not a key of the file."""


class ModelConfig(CapabilityOverrides, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this deployment says of a public model. Overrides the shipped capability table."""

    name: str
    """The public name."""
    fallbacks: tuple[str, ...] = ()
    """Public models that may answer in its place, in this order."""

    prompt_usd_per_mtok: Decimal | None = None
    cache_read_usd_per_mtok: Decimal | None = None
    cache_write_usd_per_mtok: Decimal | None = None
    cache_write_1h_usd_per_mtok: Decimal | None = None
    completion_usd_per_mtok: Decimal | None = None
    thinking_usd_per_mtok: Decimal | None = None
    request_usd: Decimal | None = None
    tiers: tuple[TierConfig, ...] = ()
    """The price: see `PriceConfig`, whose keys these are. With none, the shipped one holds."""

    @property
    def price(self) -> PriceConfig:
        """The keys that are about the price."""
        return PriceConfig.of(self)

    def __post_init__(self) -> None:
        """Refuses a price that cannot be billed exactly."""
        _ = self.price


class BillingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is charged."""

    unpriced: Literal["free", "refuse"] = "free"
    """What to do about a model that has no price: serve it for nothing, or not at all."""
    tokenizer: bool = False
    """Whether tokens that no provider has counted are counted with a vocabulary, and not by
    the size of the text. Needs the extra `tokens`, a second at the start, and 80 MB."""


class KeysConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for all keys."""

    on_revoke: Literal["end", "finish"] = "end"
    """What becomes of the calls that run on a key when it is revoked: they end within seconds
    and are charged what they have used, or they come to their end."""


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service remembers. The URLs are secrets, since they may hold passwords."""

    database_url: Secret = Secret("")
    """`postgresql://…` for a fleet. Empty: SQLite in the state directory.
    The variable POMOGATOR_DATABASE_URL comes before it."""
    redis_url: Secret = Secret("")
    """`redis://…` for limits that hold over a fleet. Empty: in this process.
    The variable POMOGATOR_REDIS_URL comes before it."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    defaults: bool = False
    """Whether the shipped channels are added: those whose key's variable is set and whose
    names the file does not take itself."""
    channels: tuple[ChannelConfig, ...] = ()
    """The accounts with upstreams."""
    models: tuple[ModelConfig, ...] = ()
    """What is known about public models beyond the shipped table."""
    limits: tuple[LimitConfig, ...] = ()
    """How much may be used, of what, by whom. Without any, all there is."""
    bounds: BoundsConfig = BoundsConfig()
    """What a process takes upon itself."""
    billing: BillingConfig = BillingConfig()
    """What is charged."""
    keys: KeysConfig = KeysConfig()
    """What holds for all keys."""
    client_certificates: dict[str, tuple[str, ...]] = {}
    """Who may call what over gRPC with `--tls-client-ca`, the operators' methods among it: names
    in certificates, of DNS or such as `spiffe://cluster.local/ns/web/sa/shop`, by methods
    (`package.Service/Method`, `package.Service/*` or `*`). Without any, all may call all."""
    state: StateConfig = StateConfig()
    """Where the service remembers."""
    traces: TracesConfig = TracesConfig()
    """Where traces go."""

    @property
    def rules(self) -> Sequence[LimitConfig]:
        """All limits: those of the channels' own rows, and `limits`, which stand above them."""
        own = (
            LimitConfig(channel=channel.name, concurrency=channel.max_concurrency)
            for channel in self.channels
            if channel.max_concurrency is not None
        )
        return (*own, *self.limits)
