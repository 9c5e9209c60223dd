"""A configuration read anew, for the calls that come from now on.

Calls that run keep what they were admitted with: their route, their price, their limits.
What the process is built from stays until it is started again: the state, the address of
every listener, and which local models run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from services.clock import Clock
from services.completions.pipeline import Pipeline
from services.config import Config, ConfigError
from services.local.local_models import LocalModels
from services.metering.prices import PriceList
from services.models.servicer import ModelServicer
from services.overload.load_shedder import LoadShedder
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth
from services.rpc.client_authorizer import ClientAuthorizer
from services.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloader:
    """Puts a new configuration in the place of the old one."""

    read: Callable[[], Config]
    """Reads it, as at the start. Raises ConfigError."""
    local: LocalModels
    """The local models that run."""
    pipeline: Pipeline
    """Where calls meet the catalog, the prices and the limits."""
    lister: ModelServicer
    """Where the catalog is shown."""
    crowd: LoadShedder
    """Where calls are counted."""
    callers: ClientAuthorizer
    """Who may call what. Connections stay; their next calls are judged anew."""
    health: ChannelHealth
    """How the channels are doing. It knows them by their keys, so that new keys start anew."""
    metrics: Metrics
    """Where channels are watched."""
    clock: Clock
    """Dates the catalog."""

    def reload(self) -> None:
        """Reads the configuration and uses it: all of it or, where it is wrong, nothing.

        Raises ConfigError, with one line for each thing that is wrong.
        """
        try:
            config = self.local.resolved(self.read())
        except ConfigError as error:
            self.metrics.reloads[("refused",)].inc()
            log.error("config.refused", extra={"problems": str(error).splitlines()})  # noqa: TRY400 - no fault of ours
            raise
        self._use(config)
        self.metrics.reloads[("done",)].inc()
        log.info("config.reloaded", extra={"channels": [row.name for row in config.channels]})

    def _use(self, config: Config) -> None:
        catalog = Catalog(config, create_time_s=int(self.clock.time()))
        gate = self.pipeline.gate
        gate.limits.replace(config.rules)
        self.pipeline.gate = replace(
            gate,
            prices=PriceList({row.name: row.price for row in config.models}),
            refuse_unpriced=config.billing.unpriced == "refuse",
        )
        self.pipeline.catalog = self.lister.catalog = catalog
        self.crowd.bounds = config.bounds
        self.health.keep(target for route in catalog.routes for target in route.targets)
        self.callers.replace(config.client_certificates)
        watch(catalog, self.health, self.metrics)


def watch(catalog: Catalog, health: ChannelHealth, metrics: Metrics) -> None:
    """Shows every channel of the catalog to those who watch."""
    for (channel, model), targets in catalog.places.items():
        metrics.watch_channel(channel, model, partial(health.best_state, targets))
