"""The configuration as operators see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.operations.v1 import operations_service_pb2 as pb

from services.config import ChannelConfig, Secret, StateConfig
from services.operations.configuration_view import shown
from tests.services.operations.test_servicer import KEY, MODEL, Source, asking

CANARY = "canary-9b1e"


async def test_the_configuration_is_shown_with_what_a_reload_changes(tmp_path: Path) -> None:
    """The difference is empty, then names the change, then problems; a reload makes it current."""
    source = Source()
    async with asking(tmp_path, source) as (service, operations):
        stub: Any = operations
        first = await stub.GetConfiguration(pb.GetConfigurationRequest())
        assert (first.diff, list(first.problems)) == ("", [])
        assert json.loads(first.configuration_json)["channels"][0]["name"] == "first"

        bounds = replace(source.config.bounds, calls_max=77)
        source.config = replace(source.config, bounds=bounds)
        changed = await stub.GetConfiguration(pb.GetConfigurationRequest())
        assert '+  "calls_max": 77' in changed.diff
        assert changed.configuration_json == first.configuration_json

        source.problem = "channels: wrong"
        broken = await stub.GetConfiguration(pb.GetConfigurationRequest())
        assert (list(broken.problems), broken.diff) == (["channels: wrong"], "")

        source.problem = ""
        await stub.ReloadConfiguration(pb.ReloadConfigurationRequest())
        last = await stub.GetConfiguration(pb.GetConfigurationRequest())
        assert json.loads(last.configuration_json)["bounds"]["calls_max"] == 77
        assert last.diff == ""
        async with service.operators_channel() as channel:
            log: Any = audit_grpc.AuditServiceStub(channel)
            entries = (await log.ListAuditEntries(audit.ListAuditEntriesRequest())).audit_entries

    assert [entry.method for entry in entries] == ["OperationsService.ReloadConfiguration"]
    assert json.loads(entries[0].after_json)["diff"] == changed.diff
    assert KEY not in first.configuration_json + changed.diff


def test_no_secret_is_shown() -> None:
    """Neither keys nor logins in URLs, nor the values of headers and queries."""
    channel = ChannelConfig(
        name="one",
        dialect="openai",
        base_url=f"https://user:{CANARY}@a.test/v1",
        models={MODEL: "m"},
        key=Secret(CANARY),
        spare_keys=(Secret(CANARY),),
        headers={"x-token": CANARY},
        query={"key": CANARY},
        secret_headers=(("api-key", Secret(CANARY)),),
    )
    state = StateConfig(database_url=Secret(f"postgresql://u:{CANARY}@db/x"))
    text = shown(replace(Source().config, channels=(channel,), state=state))

    assert CANARY not in text
    assert json.loads(text)["channels"][0]["key"] == "***"
    assert json.loads(text)["state"]["redis_url"] == ""
