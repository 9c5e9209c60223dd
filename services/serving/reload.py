"""Reload of the configuration: the snapshot for the calls to come is replaced whole.

In-flight calls keep the snapshot that they were admitted with: their route, price and limits.
A reload does not change the stores, the addresses of listeners, and which local models run:
those need a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from services.admission.call_plan import CallPlans
from services.common.plain_metrics import ByLabels, PlainCounter, PlainMetrics
from services.completions.snapshot import Snapshot, SnapshotHolder
from services.config import Config, ConfigError
from services.local.local_models import LocalModels
from services.overload.load_shedder import LoadShedder
from services.providers.registry import PLAIN_ENCODERS
from services.routing.catalog import Catalog
from services.routing.health import ChannelHealth
from services.telemetry.call_metrics import AttemptMetrics

log = logging.getLogger(__name__)


def snapshot_of(config: Config) -> Snapshot:
    """Return the snapshot of a configuration with resolved local models."""
    catalog = Catalog(config, PLAIN_ENCODERS)
    return Snapshot(
        config=config,
        client_certificates=config.client_certificates,
        catalog=catalog,
        plans=CallPlans(config, catalog.resolve_all),
        reasoning=config.reasoning,
        joins_repeats=config.billing.join_repeats,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloader:
    """Reads the configuration again and replaces the snapshot."""

    read: Callable[[], Config]
    """Reads the configuration. Raises ConfigError."""
    local: LocalModels
    snapshots: SnapshotHolder
    load_shedder: LoadShedder
    health: ChannelHealth
    """Health of the channels, each known by its key: a new key starts healthy."""
    attempts: AttemptMetrics
    """Metrics by channel."""
    results: ByLabels[PlainCounter]
    """Reloads, by `done` or `refused`."""

    def reload(self) -> None:
        """Use the configuration as it is now: all of it or, where it is wrong, nothing.

        Raises ConfigError, with one line for each problem.
        """
        try:
            config = self.pending()
            self._refuse_without_channels(config)
            snapshot = snapshot_of(config)
        except ConfigError as error:
            self.results[("refused",)].value += 1
            log.error("config.refused", extra={"problems": str(error).splitlines()})  # noqa: TRY400 - no fault of ours
            raise
        self.snapshots.current = snapshot
        self.load_shedder.use(config.bounds)
        routes = snapshot.catalog.routes
        self.health.forget_all_but(target for route in routes for target in route.targets)
        self.attempts.show(snapshot.catalog.targets_by_channel)
        self.results[("done",)].value += 1
        log.info("config.reloaded", extra={"channels": [row.name for row in config.channels]})

    def pending(self) -> Config:
        """Read the configuration that a reload would use. Raise ConfigError."""
        return self.local.resolved(self.read())

    def _refuse_without_channels(self, config: Config) -> None:
        """Refuse what is more likely a file that was truncated than a wish: every call would fail.

        A start without channels is allowed: so keys and accounts can be made first.
        """
        if not config.channels and self.snapshots.current.catalog.routes:
            raise ConfigError("channels: the reload would leave none; restart to serve nothing")


def reload_results(counters: PlainMetrics) -> ByLabels[PlainCounter]:
    """Declare the metric of reloads, and return its counters."""
    return counters.counter("config_reloads_total", "Reloads of the configuration.", "result")
