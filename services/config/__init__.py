"""The configuration: one TOML file, read once, refused whole if anything in it is wrong.

    schema     what may stand in it; every key is documented by the field of its name
    loading    `load`, the only way in, for the server and for `pomogator check` alike
    rules      what must hold between the values

Every value is frozen. Secrets are references (a variable or a file), resolved by
`load` and never shown.
"""

from services.common.config_tables import BoundsConfig, ConfigError, TracesConfig
from services.config.limits import LimitConfig
from services.config.loading import load
from services.config.prices import PriceConfig
from services.config.schema import (
    DIALECTS,
    LOCAL_MODELS,
    BillingConfig,
    BreakerConfig,
    ChannelConfig,
    Config,
    KeysConfig,
    ModelConfig,
    Quirks,
    Secret,
    StateConfig,
)

__all__ = [
    "DIALECTS",
    "LOCAL_MODELS",
    "BillingConfig",
    "BoundsConfig",
    "BreakerConfig",
    "ChannelConfig",
    "Config",
    "ConfigError",
    "KeysConfig",
    "LimitConfig",
    "ModelConfig",
    "PriceConfig",
    "Quirks",
    "Secret",
    "StateConfig",
    "TracesConfig",
    "load",
]
