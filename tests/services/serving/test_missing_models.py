"""The warning about a configuration without models."""

from __future__ import annotations

import logging

import pytest

from services.config import ChannelConfig, Config
from services.serving.missing_models import log_missing


def test_a_configuration_without_models_is_logged_with_a_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each call would be refused, and nothing else would say why."""
    local = ChannelConfig(name="l", dialect="openai", local="smollm2-135m", models={"m": "m"})

    with caplog.at_level(logging.WARNING):
        log_missing(Config(channels=(local,)))
        log_missing(Config())

    (record,) = caplog.records
    assert record.message == "models.missing"
    assert "ANTHROPIC_API_KEY" in vars(record)["remedy"]
