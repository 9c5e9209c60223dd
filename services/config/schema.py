"""Tables and keys of the configuration: one class per table, one documented field per key."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from services.capabilities import CapabilityOverrides
from services.common.config_tables import BoundsConfig, EdgeTableConfig, TracesConfig
from services.config.channels import ChannelConfig
from services.config.limits import LimitConfig
from services.config.prices import PriceConfig, TierConfig
from services.config.secret import Secret


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


class PromptCacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Use of the providers' prompt caches, in which a long prompt that comes again costs less."""

    affinity: bool = True
    """Whether the calls of one session go to one channel and key while these answer, since each
    key of a provider has a cache of its own. Only of prompts of 1,024 tokens or more, to models
    whose cached tokens have a lower price."""
    marks: bool = True
    """Whether prompts of 1,024 tokens or more whose beginning comes again within five minutes get
    cache marks at channels of the dialect `anthropic`, with a note, unless the caller sets some."""


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reasoning of models."""

    remember: bool = True
    """Whether the sealed reasoning of answers with tool calls is kept for an hour, in memory or in
    Redis, and restored in later requests of the same account that have the calls without it. Most
    clients do not send it back, and without it Claude and Gemini think no further."""
    content: Literal["array", "text"] = "array"
    """Content of whole REST answers of `-thinking` names: an array with the reasoning, or a string,
    which typed clients expect. A key (`--text-content`) and a call (`x-pomogator-content: text`)
    can ask for the string, too."""
    list_thinking_names: bool = True
    """Whether the list of models has the `-thinking` names. They are usable in any case."""


class CallLogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Call log."""

    enabled: bool = True
    """Whether each call of an accepted key gets a row, with names, numbers and times, and never a
    part of a prompt or an answer. Read at the start."""
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 30
    """Days for which rows and their sums are kept. SQLite keeps them until the end of their month
    is as old. Read at the start."""


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
