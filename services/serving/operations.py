"""Parts of OperationsService: explainers of the current configuration, and what operators watch."""

from __future__ import annotations

from functools import partial

from services.operations.channel_control import ChannelControl
from services.operations.configuration_view import ConfigurationView
from services.operations.embedding_explainer import EmbeddingExplainer
from services.operations.explainer import Explainer
from services.operations.load_report import LoadReport
from services.operations.servicer import OperationsParts
from services.overload.load_shedder import LoadShedder
from services.providers.registry import DIALECTS, EMBEDDING_DIALECTS
from services.routing.affinity import SessionAffinity
from services.serving.process_parts import ProcessParts
from services.serving.reload import Reloader
from services.serving.stores import Stores


def operations_parts(
    parts: ProcessParts,
    stores: Stores,
    reloader: Reloader,
    sessions: SessionAffinity,
    load_shedder: LoadShedder,
    control: ChannelControl,
) -> OperationsParts:
    """Return the parts for the service of a process."""
    return OperationsParts(
        explainer=partial(_explainer, parts, reloader, sessions),
        embedding_explainer=partial(_embedding_explainer, parts, reloader),
        failures=parts.failures,
        control=control,
        leases=stores.leases,
        load=LoadReport(load_shedder, parts.calls, parts.call_metrics.refused),
        configuration=ConfigurationView(
            running=lambda: reloader.snapshots.current.config, read=reloader.pending
        ),
        reload=reloader.reload,
    )


def _explainer(parts: ProcessParts, reloader: Reloader, sessions: SessionAffinity) -> Explainer:
    snapshot = reloader.snapshots.current
    return Explainer(
        catalog=snapshot.catalog,
        plans=snapshot.plans,
        dialects=DIALECTS,
        health=reloader.health,
        chance=parts.chance,
        sessions=sessions,
    )


def _embedding_explainer(parts: ProcessParts, reloader: Reloader) -> EmbeddingExplainer:
    snapshot = reloader.snapshots.current
    return EmbeddingExplainer(
        catalog=snapshot.catalog,
        plans=snapshot.plans,
        dialects=EMBEDDING_DIALECTS,
        health=reloader.health,
        chance=parts.chance,
    )
