"""The configuration: one TOML file, refused whole if anything in it is wrong.

Modules, in the order in which data flows:

    schema               tables and keys, each documented by its field
    channels             rows of `[[channels]]`
    secret               strings that are not shown
    limits               rows of `[[limits]]`
    prices               prices in rows of `[[models]]`
    loading              `load`, for the server and for `pomogator check`
    rules                rules beyond the types of values
    type_errors          messages about values of a wrong type
    client_certificates  rules of `[client_certificates]`

Every value is frozen. Secrets are references (a variable or a file), resolved by `load` and never
shown. `[bounds]`, `[edge]` and `[traces]` are in `services.common.config_tables`, since an edge in
its own process reads them, too.
"""

from services.common.config_tables import BoundsConfig, ConfigError, EdgeTableConfig, TracesConfig
from services.config.channels import LOCAL_MODELS, BreakerConfig, ChannelConfig, PassThrough, Quirks
from services.config.limits import LimitConfig
from services.config.loading import load, load_state
from services.config.prices import PriceConfig
from services.config.schema import (
    BillingConfig,
    CallLogConfig,
    Config,
    KeysConfig,
    ModelConfig,
    PromptCacheConfig,
    ReasoningConfig,
    StateConfig,
)
from services.config.secret import Secret

__all__ = [
    "LOCAL_MODELS",
    "BillingConfig",
    "BoundsConfig",
    "BreakerConfig",
    "CallLogConfig",
    "ChannelConfig",
    "Config",
    "ConfigError",
    "EdgeTableConfig",
    "KeysConfig",
    "LimitConfig",
    "ModelConfig",
    "PassThrough",
    "PriceConfig",
    "PromptCacheConfig",
    "Quirks",
    "ReasoningConfig",
    "Secret",
    "StateConfig",
    "TracesConfig",
    "load",
    "load_state",
]
