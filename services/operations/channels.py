"""Status of channels, for operators."""

from __future__ import annotations

from collections.abc import Iterator

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.operations.candidates import describe
from services.providers.base import ModelRoute, Target
from services.providers.channel_failures import ChannelFailures
from services.routing.catalog import Catalog
from services.routing.choice import tiers
from services.routing.health import ChannelHealth


def list_channels(
    catalog: Catalog, health: ChannelHealth, failures: ChannelFailures, model: str = ""
) -> Iterator[pb.ChannelStatus]:
    """Yield the status of the targets of a public model, or of all models, by priority.

    Derived names are left out, since they have the targets of their base models.
    Raise Failure MODEL_NOT_FOUND.
    """
    if model:
        model = catalog.resolve(model).base_model
    for route in catalog.routes:
        if route.model == (model or route.base_model):
            for tier in tiers(route.targets):
                for target in tier:
                    status = _status(route, target, health)
                    if failure := failures.last(target):
                        status.last_failure = failure.text
                        status.last_failure_time.FromMilliseconds(round(failure.time_s * 1000))
                    yield status


def _status(route: ModelRoute, target: Target, health: ChannelHealth) -> pb.ChannelStatus:
    status = pb.ChannelStatus(error_rate=health.error_rate(target))
    describe(status, target, route, health)
    if open_for_s := health.open_for_s(target):
        status.rest.FromMilliseconds(round(open_for_s * 1000))
    return status
