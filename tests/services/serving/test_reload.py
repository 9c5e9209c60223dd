from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from services.config import BoundsConfig, Config, ConfigError, LimitConfig, load
from services.providers.registry import DIALECTS
from services.serving.server import open_service

CONFIG = """
[[channels]]
name = "somewhere"
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
models = { "a/one" = "one" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "pomogator.toml"
    path.write_text(CONFIG)
    return load(path, {}, dialects=DIALECTS)


async def test_a_reload_replaces_the_snapshot(tmp_path: Path, config: Config) -> None:
    """Bounds, certificates, catalog, limits and prices change at once; the old one is unchanged."""
    changed = msgspec.structs.replace(
        config,
        bounds=BoundsConfig(calls_max=7),
        client_certificates={"*": ("edge.svc",)},
        limits=(LimitConfig(key="*", rpm=1),),
    )
    async with open_service(config, tmp_path, {}, read=lambda: changed) as service:
        snapshots = service.reloader.snapshots
        before = snapshots.current
        service.reloader.reload()
        after = snapshots.current

        assert service.load_shedder.calls_max == 7
    assert (before.config.bounds, before.client_certificates) == (BoundsConfig(), {})
    assert (after.config.bounds.calls_max, after.client_certificates) == (7, {"*": ("edge.svc",)})
    assert before.catalog is not after.catalog
    assert before.plans is not after.plans


async def test_a_reload_that_leaves_no_channel_is_refused(
    tmp_path: Path, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """As a file that is being written: the old configuration stays. A start may have none."""
    async with open_service(config, tmp_path, {}, read=Config) as service:
        before = service.reloader.snapshots.current
        with pytest.raises(ConfigError, match="would leave none"):
            service.reloader.reload()
        assert service.reloader.snapshots.current is before
    assert "config.refused" in caplog.messages

    async with open_service(Config(), tmp_path, {}, read=lambda: config) as service:
        service.reloader.reload()
        assert service.reloader.snapshots.current.catalog.routes


async def test_a_wrong_configuration_changes_nothing(
    tmp_path: Path, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """The problems are logged."""

    def wrong() -> Config:
        raise ConfigError("one\ntwo")

    async with open_service(config, tmp_path, {}, read=wrong) as service:
        before = service.reloader.snapshots.current
        with caplog.at_level(logging.ERROR), pytest.raises(ConfigError):
            service.reloader.reload()

        assert service.reloader.snapshots.current is before
    (record,) = caplog.records
    assert (record.message, vars(record)["problems"]) == ("config.refused", ["one", "two"])
